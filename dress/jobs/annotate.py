"""job=annotate: responses sampled from a model, or ready candidates, with feedback, as shards."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from hydra.utils import instantiate

from dress.artifact import Artifact
from dress.data.rejects import Reject, Rejects
from dress.data.shard_index import ShardIndex
from dress.errors import InputError
from dress.feedback.annotator import Annotator
from dress.jobs.backend import configure
from dress.jobs.job import Job, open_model
from dress.jobs.progress import bar
from dress.jobs.shards import SPLITS, described, write_split
from dress.types import ASPECTS, Sample

_CHUNK = 1024  # groups sampled at a time: memory does not grow with their number


def run(job: Job) -> Artifact:
    feedback = job.node("feedback")
    if feedback["responses"] not in ("sampled", "captions"):
        raise InputError(
            f"feedback.responses is {feedback['responses']!r}: choose sampled or captions."
        )
    sampled = feedback["responses"] == "sampled"
    parents = _sampling_parents(job) if sampled else {"candidates": job.parent("candidates")}
    nodes = {"annotator": job.node("annotator"), "seed": job.cfg.seed}
    nodes["feedback"] = feedback if sampled else {"responses": "captions"}
    with job.building(kind="shards", nodes=nodes, parents=parents) as building:
        if not building.reused:
            from dress.feedback.rollout import annotate_group  # transformers: seconds

            annotator: Annotator = instantiate(job.cfg.annotator, _convert_="all")
            groups = _responses(job, parents) if sampled else _stored(parents["candidates"])
            tally = Tally()
            rejects = Rejects(max_rejects=job.cfg.data.max_rejects)
            counts = write_split(
                (tally.add(annotate_group(annotator, group)) for group in groups),
                building.path,
                validation_share=job.cfg.data.validation_share,
                rejects=rejects,
            )
            metrics = tally.metrics() | {f"shards/{s}": float(n) for s, n in counts.items()}
            print(described(counts, rejects), flush=True)
            building.write_metrics(metrics)
    assert building.artifact is not None
    return building.artifact


def _sampling_parents(job: Job) -> dict[str, Artifact]:
    given = job.cfg.artifact
    model = open_model(given) if given else job.parent("model")
    return {"model": model, "prompts": job.parent("prompts")}


def _stored(artifact: Artifact) -> Iterator[Sample]:
    """Read all groups of a shards artifact, both splits, in order."""
    for split in SPLITS:
        index = ShardIndex.open(artifact.path / split)
        for shard, groups in enumerate(index.groups):
            for sample in index.read_groups(shard, 0, int(groups)):
                if isinstance(sample, Reject):
                    raise InputError(f"{artifact.path} is damaged: {sample}; build it again.")
                yield sample


def _responses(job: Job, parents: dict[str, Artifact]) -> Iterator[Sample]:
    from dress.feedback.rollout import sample_responses
    from dress.loading import load_artifact

    configure(job.cfg.trainer)
    assistant = load_artifact(parents["model"])
    settings = job.cfg.feedback
    total = int(sum(parents["prompts"].metrics[f"shards/{split}"] for split in SPLITS))
    prompts = _stored(parents["prompts"])
    with bar("sampling responses", total) as shown:
        start = 0
        while chunk := list(islice(prompts, _CHUNK)):
            yield from sample_responses(
                assistant,
                chunk,
                num_samples=settings.samples,
                temperature=settings.temperature,
                top_p=settings.top_p,
                max_new_tokens=settings.max_new_tokens,
                batch_size=settings.batch_size,
                seed=job.cfg.seed * 1_000_003 + start,
                on_batch=shown.update,
            )
            start += len(chunk)


class Tally:
    """Mean rating per aspect and the share of each rating, over all responses."""

    def __init__(self) -> None:
        self.counts = {(aspect, rating): 0 for aspect in ASPECTS for rating in (1, 2, 3, 4)}
        self.responses = 0

    def add(self, sample: Sample | Reject) -> Sample | Reject:
        if isinstance(sample, Sample):
            for dialogue in sample.dialogues:
                feedback = dialogue.turns[-1].feedback
                assert feedback is not None
                self.responses += 1
                for aspect, judgement in feedback.judgements.items():
                    self.counts[aspect, judgement.rating] += 1
        return sample

    def metrics(self) -> dict[str, float]:
        figures = {"feedback/responses": float(self.responses)}
        for aspect in ASPECTS:
            shares = {rating: self.counts[aspect, rating] for rating in (1, 2, 3, 4)}
            if total := sum(shares.values()):
                mean = sum(rating * n for rating, n in shares.items()) / total
                figures[f"feedback/{aspect}"] = mean
                figures |= {f"feedback/{aspect}_{r}": n / total for r, n in shares.items()}
        return figures
