"""job=annotate: responses sampled from a model, or ready candidates, with feedback, as shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from hydra.utils import instantiate

from dress.artifact import Artifact
from dress.chat.condition import chosen_target, has_learned
from dress.data.lvlm_nlf_writer import FOLDER, LvlmNlfWriter
from dress.data.rejects import Rejects
from dress.data.shard_index import read_all
from dress.data.split import SPLITS
from dress.errors import Reject
from dress.feedback.annotator import Annotator, BatchAnnotator, Tally, annotate_groups
from dress.feedback.endpoint import named_settings
from dress.feedback.sampler import Sampler
from dress.generation import SPENT, Sampling
from dress.jobs.job import Job, open_model
from dress.jobs.response_source import (
    endpoint_nodes,
    is_endpoint,
    open_endpoint,
    open_model_sampler,
)
from dress.jobs.shards import described, write_split
from dress.progress import Bar, progress
from dress.settings import Positive, Share, Whole
from dress.types import Sample


@dataclass(frozen=True, kw_only=True)
class Responding:
    """How many responses are got, and from where (conf/feedback); Sampling says how."""

    responses: Literal["sampled", "captions"]
    prompts: Positive | None
    chunk: Positive
    parts: Positive
    part: Whole | None
    targets: Sequence[str | int]
    samples: Positive
    turns: Positive
    first_candidates: Positive
    candidates: Positive
    revisions: Literal["heard", "fresh"]
    relapse_share: Share
    false_share: Share
    false_feedback: Sequence[Literal["other", "aside", "wrong", "empty"]]
    jsonl: bool

    @classmethod
    def of(cls, job: Job) -> Responding:
        node = job.node("feedback")
        return cls(**{field.name: node[field.name] for field in fields(cls)})


_OF_ROLLOUTS = (
    "first_candidates",
    "candidates",
    "revisions",
    "relapse_share",
    "false_share",
    "false_feedback",
)
_OF_READY_RESPONSES = ("responses", "prompts", "chunk", "parts", "part", "jsonl")


def run(job: Job) -> Artifact:
    feedback = job.node("feedback")
    if feedback["parts"] > 1 and feedback["part"] is None:
        return _merged(job, feedback["parts"])
    sampled = feedback["responses"] == "sampled"
    parents = _sampling_parents(job) if sampled else {"candidates": job.parent("candidates")}
    if sampled:
        learned = "model" in parents and has_learned(parents["model"].config)
        feedback["targets"] = [chosen_target(t, learned=learned) for t in feedback["targets"]]
    targets = feedback["targets"]
    with job.building(kind="shards", nodes=_nodes(job, feedback), parents=parents) as building:
        if not building.reused:
            annotator: Annotator = instantiate(job.cfg.annotator, _convert_="all")
            figures: dict[str, float] = {}
            if not sampled:
                stored = chain.from_iterable(c for _, c in _chunks(job, parents["candidates"]))
                groups = _judged(annotator, stored)
            elif feedback["turns"] == 1:
                groups = _judged(annotator, _responses(job, parents, targets, figures))
            else:
                groups = _rollouts(job, parents, targets, annotator, figures)
            building.write_metrics(_write(job, building.path, groups) | figures)
            if isinstance(annotator, BatchAnnotator):
                building.write_metrics(annotator.metrics())
    assert building.artifact is not None
    return building.artifact


def _nodes(job: Job, feedback: dict[str, Any]) -> dict[str, Any]:
    """Return what the responses and their feedback are named by."""
    if feedback["responses"] != "sampled":
        used = {k: feedback[k] for k in _OF_READY_RESPONSES}
    else:
        unused = _OF_ROLLOUTS if feedback["turns"] == 1 else ()
        used = {k: value for k, value in feedback.items() if k not in unused}
    nodes = {
        "annotator": named_settings(job.node("annotator")),
        "seed": job.cfg.seed,
        "feedback": used,
    }
    return nodes | (endpoint_nodes(job, feedback["targets"]) if is_endpoint(job.cfg) else {})


def _merged(job: Job, parts: int) -> Artifact:
    """Join the parts of `feedback.parts`, made elsewhere or here and now."""
    parents = {f"part_{part}": job.again(f"feedback.part={part}") for part in range(parts)}
    with job.building(kind="shards", nodes={"parts": parts}, parents=parents) as building:
        if not building.reused:
            groups = chain.from_iterable(_stored(part) for part in parents.values())
            building.write_metrics(_write(job, building.path, groups))
            spent: Counter[str] = Counter()
            for part in parents.values():
                spent.update({n: v for n, v in part.metrics.items() if n.startswith(SPENT)})
            building.write_metrics(spent)
    assert building.artifact is not None
    return building.artifact


def _write(job: Job, directory: Path, groups: Iterable[Sample | Reject]) -> dict[str, float]:
    """Write shards of both splits, and LVLM_NLF's format if asked; return what was counted."""
    if is_endpoint(job.cfg):
        groups = _named(groups, job.cfg.sampler.model)
    tally = Tally()
    rejects = Rejects(max_rejects=job.cfg.data.max_rejects)
    with ExitStack() as stack:
        watching = [tally.add]
        if Responding.of(job).jsonl:
            watching.append(stack.enter_context(LvlmNlfWriter(directory / FOLDER)).add)
        counts = write_split(
            _watched(groups, watching),
            directory,
            validation_share=job.cfg.data.validation_share,
            rejects=rejects,
        )
    print(described(counts, rejects), flush=True)
    return tally.metrics() | {f"shards/{split}": float(n) for split, n in counts.items()}


def _watched(
    groups: Iterable[Sample | Reject], watching: Sequence[Callable[[Sample], None]]
) -> Iterator[Sample | Reject]:
    for group in groups:
        if isinstance(group, Sample):
            for watch in watching:
                watch(group)
        yield group


def _named(groups: Iterable[Sample | Reject], model: str) -> Iterator[Sample | Reject]:
    """Note in each group which model of others gave the responses."""
    for group in groups:
        if isinstance(group, Sample):
            group = replace(group, annotations={**group.annotations, "model": model})
        yield group


def _sampling_parents(job: Job) -> dict[str, Artifact]:
    if is_endpoint(job.cfg):
        return {"prompts": job.parent("prompts")}
    given = job.cfg.artifact
    if given and not job.is_parent:  # a parent shares the overrides of what is trained
        job.refuse_model_overrides("only feedback.*, annotator.* and data.* can")
    model = open_model(given) if given else job.parent("model")
    return {"model": model, "prompts": job.parent("prompts")}


def _stored(artifact: Artifact) -> Iterator[Sample]:
    """Read all groups of a shards artifact, those held out spread evenly among the others.

    Groups keep their split by their image: so the first of them, or a part, are of both splits.
    """
    train, validation = (int(artifact.metrics[f"shards/{split}"]) for split in SPLITS)
    trained, held_out = (read_all(artifact.path / split) for split in SPLITS)
    total, taken = train + validation, 0
    for number in range(1, total + 1):
        due = -(-number * validation // total)
        yield next(held_out if due > taken else trained)
        taken = due


def _judged(annotator: Annotator, groups: Iterable[Sample | Reject]) -> Iterator[Sample | Reject]:
    judged = annotate_groups(annotator, groups)
    # who judges many at a time takes long enough for a bar of its own
    return progress(judged, "annotating") if isinstance(annotator, BatchAnnotator) else judged


def _responses(
    job: Job, parents: Mapping[str, Artifact], targets: Sequence[str], figures: dict[str, float]
) -> Iterator[Sample | Reject]:
    """Sample single responses to every prompt; `figures` receives how many tokens that took."""
    from dress.feedback.sampling import sample_responses  # transformers: seconds

    settings = Responding.of(job)
    for sampler, chunk, seed, shown in _prompts(job, parents, "sampling responses"):
        yield from sample_responses(
            sampler,
            chunk,
            targets=targets,
            num_samples=settings.samples,
            sampling=_sampling(job),
            seed=seed,
            on_batch=shown.update,
        )
        figures |= sampler.metrics()


def _rollouts(
    job: Job,
    parents: Mapping[str, Artifact],
    targets: Sequence[str],
    annotator: Annotator,
    figures: dict[str, float],
) -> Iterator[Sample | Reject]:
    """Roll out dialogues; `figures` receives what became of them."""
    from dress.feedback.refinement import RefinementRollout

    settings, rollout = Responding.of(job), None
    for sampler, chunk, seed, shown in _prompts(job, parents, "rolling out dialogues"):
        rollout = rollout or RefinementRollout(
            sampler=sampler,
            annotator=annotator,
            targets=targets,
            samples=settings.samples,
            max_turns=settings.turns,
            first_candidates=settings.first_candidates,
            candidates=settings.candidates,
            revisions=settings.revisions,
            relapse_share=settings.relapse_share,
            false_share=settings.false_share,
            false_feedback=settings.false_feedback,
            sampling=_sampling(job),
        )
        yield from rollout(
            chunk, seed=seed, on_batch=shown.update, on_turn=partial(shown.update, 0)
        )
        figures |= rollout.metrics() | sampler.metrics()


def _sampling(job: Job) -> Sampling:
    names = ("temperature", "top_p", "max_new_tokens", "batch_size")
    return Sampling(**{name: job.cfg.feedback[name] for name in names})


def _prompts(
    job: Job, parents: Mapping[str, Artifact], title: str
) -> Iterator[tuple[Sampler, list[Sample], int, Bar]]:
    """Yield who answers, the next chunk of prompts, its seed and the bar that counts them."""
    sampler = _sampler(job, parents)
    total = int(sum(parents["prompts"].metrics[f"shards/{split}"] for split in SPLITS))
    settings = Responding.of(job)
    total = min(total, settings.prompts or total) // settings.parts
    with Bar(title, total * len(settings.targets)) as shown:
        for start, chunk in _chunks(job, parents["prompts"]):
            yield sampler, chunk, job.cfg.seed * 1_000_003 + start, shown


def _sampler(job: Job, parents: Mapping[str, Artifact]) -> Sampler:
    return open_endpoint(job) if is_endpoint(job.cfg) else open_model_sampler(job, parents["model"])


def _chunks(job: Job, artifact: Artifact) -> Iterator[tuple[int, list[Sample]]]:
    """Yield what is worked on at a time and the number of its first group.

    Part i of n takes every n-th chunk from the i-th on, so that parts make what one run would.
    """
    settings = Responding.of(job)
    stored = islice(_stored(artifact), settings.prompts)
    number = 0
    while chunk := list(islice(stored, settings.chunk)):
        if number % settings.parts == (settings.part or 0):
            yield number * settings.chunk, chunk
        number += 1
