"""Responses to prompts, sampled from a model or ready, and judged, as shards.

Several devices share the prompts; who answers what decides nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

from hydra.utils import get_class, instantiate

from dress.artifact import Artifact, Building
from dress.data.lvlm_nlf_writer import FOLDER, LvlmNlfWriter
from dress.data.rejects import Rejects
from dress.data.shard_index import read_all
from dress.data.split import SPLITS
from dress.distributed import place
from dress.errors import Reject
from dress.feedback.annotator import Annotator, BatchAnnotator, Tally, annotate_groups
from dress.feedback.refinement import RefinementRollout
from dress.feedback.sampler import Sampler
from dress.feedback.sampling import sample_responses
from dress.generation import Responding, Sampling
from dress.jobs.checks import world_size
from dress.jobs.job import Job
from dress.jobs.processes import Order, Result, launch, order_of
from dress.jobs.response_source import is_endpoint, open_assistant, open_endpoint
from dress.jobs.shards import described, write_split
from dress.progress import Bar, progress
from dress.types import Sample


def respond(
    job: Job, building: Building, parents: Mapping[str, Artifact], targets: Sequence[str]
) -> dict[str, float]:
    """Write shards of groups with their feedback, and return what was counted.

    Each device has a process of its own where a model of ours answers and the annotator costs
    nothing: all of them ask it.
    """
    asks_others = issubclass(get_class(job.cfg.annotator._target_), BatchAnnotator)
    alone = asks_others or "model" not in parents or world_size() > 1
    if alone or job.cfg.trainer.devices == 1:
        return _respond(job, building.path, parents, targets)
    order = order_of(job, "respond") | {
        "building": str(building.path),
        "parents": {role: str(parent.path) for role, parent in parents.items()},
        "targets": list(targets),
    }
    figures, _ = launch(order, job.cfg.trainer.devices)
    return figures


def carry_out(job: Job, order: Order) -> Result:
    """Do this process's share of the work; the first one writes what all of them made."""
    parents = {role: Artifact.open(path) for role, path in order["parents"].items()}
    return _respond(job, Path(order["building"]), parents, order["targets"]), False


def _respond(
    job: Job, directory: Path, parents: Mapping[str, Artifact], targets: Sequence[str]
) -> dict[str, float]:
    annotator: Annotator = instantiate(job.cfg.annotator, _convert_="all")
    settings, figures = _settings(job), dict[str, float]()
    if settings.responses != "sampled":
        ready = chain.from_iterable(c for _, c in _chunks(job, parents["candidates"]))
        groups = _judged(annotator, ready)
    elif settings.turns == 1:
        groups = _judged(annotator, _responses(job, parents, targets, figures))
    else:
        groups = _rollouts(job, parents, targets, annotator, figures)
    if place()[0] > 0:
        deque(groups, maxlen=0)
        return figures
    figures = write(job, directory, groups) | figures
    return figures | (annotator.metrics() if isinstance(annotator, BatchAnnotator) else {})


def write(job: Job, directory: Path, groups: Iterable[Sample | Reject]) -> dict[str, float]:
    """Write shards of both splits, and LVLM_NLF's format if asked; return what was counted."""
    if is_endpoint(job.cfg):
        groups = _named(groups, job.cfg.sampler.model)
    tally = Tally()
    rejects = Rejects(max_rejects=job.cfg.data.max_rejects)
    with ExitStack() as stack:
        watching = [tally.add]
        if _settings(job).jsonl:
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


def stored(artifact: Artifact) -> Iterator[Sample]:
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
    settings = _settings(job)
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
    settings, rollout = _settings(job), None
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


def _settings(job: Job) -> Responding:
    return Responding.of(job.node("feedback"))


def _sampling(job: Job) -> Sampling:
    names = ("temperature", "top_p", "max_new_tokens", "batch_size")
    return Sampling(**{name: job.cfg.feedback[name] for name in names})


def _prompts(
    job: Job, parents: Mapping[str, Artifact], title: str
) -> Iterator[tuple[Sampler, list[Sample], int, Bar]]:
    """Yield who answers, the next chunk of prompts, its seed and the bar that counts them."""
    sampler = _sampler(job, parents)
    total = int(sum(parents["prompts"].metrics[f"shards/{split}"] for split in SPLITS))
    settings = _settings(job)
    total = min(total, settings.prompts or total) // settings.parts
    with Bar(title, total * len(settings.targets)) as shown:
        for start, chunk in _chunks(job, parents["prompts"]):
            yield sampler, chunk, job.cfg.seed * 1_000_003 + start, shown


def _sampler(job: Job, parents: Mapping[str, Artifact]) -> Sampler:
    return open_endpoint(job) if is_endpoint(job.cfg) else open_assistant(job, parents["model"])


def _chunks(job: Job, artifact: Artifact) -> Iterator[tuple[int, list[Sample]]]:
    """Yield what is worked on at a time and the number of its first group.

    Part i of n takes every n-th chunk from the i-th on, so that parts make what one run would.
    """
    settings = _settings(job)
    prompts = islice(stored(artifact), settings.prompts)
    number = 0
    while chunk := list(islice(prompts, settings.chunk)):
        if number % settings.parts == (settings.part or 0):
            yield number * settings.chunk, chunk
        number += 1
