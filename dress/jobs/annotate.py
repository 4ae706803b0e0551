"""job=annotate: responses sampled from a model, or ready candidates, with feedback, as shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate

from dress.artifact import Artifact
from dress.data.rejects import Reject, Rejects
from dress.data.shard_index import ShardIndex
from dress.errors import InputError
from dress.feedback.annotator import Annotator, BatchAnnotator, annotate_groups
from dress.jobs.backend import configure
from dress.jobs.job import Job, open_model
from dress.jobs.progress import bar, progress
from dress.jobs.shards import SPLITS, described, write_split
from dress.types import ASPECTS, Sample

if TYPE_CHECKING:
    from dress.assistant import Assistant

_SAME_JUDGEMENTS = {  # settings of an annotator that change none
    "api_key_env",
    "base_url",
    "cache_dir",
    "concurrency",
    "max_retries",
    "price_per_million",
    "timeout_s",
}
_CHUNK = 1024  # groups sampled at a time: memory does not grow with their number


def run(job: Job) -> Artifact:
    feedback = job.node("feedback")
    if feedback["responses"] not in ("sampled", "captions"):
        raise InputError(
            f"feedback.responses is {feedback['responses']!r}: choose sampled or captions."
        )
    sampled = feedback["responses"] == "sampled"
    parents = _sampling_parents(job) if sampled else {"candidates": job.parent("candidates")}
    judging = {k: v for k, v in job.node("annotator").items() if k not in _SAME_JUDGEMENTS}
    nodes = {"annotator": judging, "seed": job.cfg.seed}
    nodes["feedback"] = feedback if sampled else {"responses": "captions"}
    with job.building(kind="shards", nodes=nodes, parents=parents) as building:
        if not building.reused:
            annotator: Annotator = instantiate(job.cfg.annotator, _convert_="all")
            tally, figures = Tally(), dict[str, float]()
            if not sampled:
                groups = _judged(annotator, _stored(parents["candidates"]))
            elif feedback["turns"] == 1:
                groups = _judged(annotator, _responses(job, parents))
            else:
                groups = _rollouts(job, parents, annotator, figures)
            rejects = Rejects(max_rejects=job.cfg.data.max_rejects)
            counts = write_split(
                (tally.add(group) for group in groups),
                building.path,
                validation_share=job.cfg.data.validation_share,
                rejects=rejects,
            )
            metrics = (
                tally.metrics() | figures | {f"shards/{s}": float(n) for s, n in counts.items()}
            )
            if isinstance(annotator, BatchAnnotator):
                metrics |= annotator.metrics()
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


def _judged(annotator: Annotator, groups: Iterable[Sample]) -> Iterator[Sample | Reject]:
    judged = annotate_groups(annotator, groups)
    # who judges many at a time takes long enough for a bar of its own
    return progress(judged, "annotating") if isinstance(annotator, BatchAnnotator) else judged


def _responses(job: Job, parents: Mapping[str, Artifact]) -> Iterator[Sample]:
    """Sample single responses to every prompt."""
    from dress.feedback.rollout import Sampling, sample_responses  # transformers: seconds

    settings = job.cfg.feedback
    for assistant, chunk, seed, done in _prompts(job, parents, "sampling responses"):
        yield from sample_responses(
            assistant,
            chunk,
            targets=settings.targets,
            num_samples=settings.samples,
            sampling=Sampling(**_sampling(job)),
            seed=seed,
            on_batch=done,
        )


def _rollouts(
    job: Job, parents: Mapping[str, Artifact], annotator: Annotator, figures: dict[str, float]
) -> Iterator[Sample | Reject]:
    """Roll out dialogues; `figures` receives what became of them."""
    from dress.feedback.refinement import RefinementRollout
    from dress.feedback.rollout import Sampling

    settings, rollout = job.cfg.feedback, None
    for assistant, chunk, seed, done in _prompts(job, parents, "rolling out dialogues"):
        rollout = rollout or RefinementRollout(
            assistant=assistant,
            annotator=annotator,
            targets=settings.targets,
            samples=settings.samples,
            max_turns=settings.turns,
            candidates=settings.candidates,
            false_share=settings.false_share,
            sampling=Sampling(**_sampling(job)),
        )
        yield from rollout(chunk, seed=seed, on_batch=done)
        figures |= rollout.metrics()


def _sampling(job: Job) -> dict[str, Any]:
    names = ("temperature", "top_p", "max_new_tokens", "batch_size")
    return {name: job.cfg.feedback[name] for name in names}


def _prompts(
    job: Job, parents: Mapping[str, Artifact], title: str
) -> Iterator[tuple[Assistant, list[Sample], int, Callable[[int], None]]]:
    """Yield the model, the next chunk of prompts, its seed, and what to tell of finished ones."""
    from dress.loading import load_artifact

    configure(job.cfg.trainer)
    assistant = load_artifact(parents["model"])
    settings = job.cfg.feedback
    total = int(sum(parents["prompts"].metrics[f"shards/{split}"] for split in SPLITS))
    total = min(total, settings.prompts or total)
    prompts = islice(_stored(parents["prompts"]), total)
    per_prompt = len(settings.targets)
    with bar(title, total * per_prompt) as shown:
        start = 0
        while chunk := list(islice(prompts, _CHUNK)):
            yield assistant, chunk, job.cfg.seed * 1_000_003 + start, shown.update
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
