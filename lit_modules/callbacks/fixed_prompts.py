"""Ask the same few prompts at every validation: answers to read, and answers rated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import lightning as L

from dress.assistant import Assistant
from dress.chat.processor import Processor
from dress.data.shard_index import ShardIndex
from dress.data.shard_set import ShardSet
from dress.data.stores.addresses import below
from dress.errors import Reject
from dress.feedback.annotator import Annotator, Tally, annotate_groups
from dress.modeling.sharding import gathered
from dress.objectives.objective import Prepared
from dress.records import Prompt
from dress.settings import Whole, checked
from dress.types import ASPECTS, Dialogue, Sample, Turn
from lit_modules.callbacks.sample_table import SampleTable, TablePrompt

RATED_CONDITIONS = ("best", "none", "worst")


@checked
def sample_table(
    *,
    rows: Whole,
    assistant: Assistant,
    data: ShardSet,
    directory: Path,
    target: str,
    decoding: Mapping[str, Any],
) -> SampleTable | None:
    """Ask the first `rows` validation prompts under the target, validation after validation.

    A reward model gives no answers to show.
    """
    if not rows or assistant.model.scalar_head is not None:
        return None
    critique = assistant.condition.target(target)
    prompts = [
        table_prompt(sample, condition=target, critique=critique)
        for sample in first_samples(data, rows, assistant.processor)
    ]

    def respond(prompts: Sequence[TablePrompt]) -> list[str]:
        asked = [Prompt((p.image,), (Turn(p.question),), p.critique) for p in prompts]
        return answers(assistant, asked, decoding=decoding)

    return SampleTable(prompts=prompts, respond=respond, directory=directory, max_rows=rows)


def table_prompt(sample: Sample, *, condition: str, critique: str) -> TablePrompt:
    """The opening question of a record, with its reference or first response as the truth."""
    turn = sample.dialogues[0].turns[0]
    return TablePrompt(
        image=sample.images[0],
        question=turn.user,
        condition=condition,
        critique=critique,
        truth=str(sample.annotations.get("reference") or turn.model or ""),
    )


@checked
def condition_ratings(
    *,
    prompts: Whole,
    objective: Prepared,
    annotator: Annotator | None,
    assistant: Assistant,
    data: ShardSet,
    decoding: Mapping[str, Any],
) -> ConditionRatings | None:
    """Rate answers to the first validation prompts, where training is on feedback.

    There is no annotator where judging would cost something.
    """
    if not prompts or annotator is None or objective.requires != "feedback":
        return None
    samples = first_samples(data, prompts, assistant.processor)
    critiques = {name: assistant.condition.target(name) for name in RATED_CONDITIONS}

    def rate() -> dict[str, float]:
        asked = [
            Prompt(sample.images[:1], (_opening(sample),), critique)
            for critique in critiques.values()
            for sample in samples
        ]
        given = iter(answers(assistant, asked, decoding=decoding))
        figures = {name: mean_ratings(annotator, _answered(samples, given)) for name in critiques}
        return {f"{name}/{what}": v for name, part in figures.items() for what, v in part.items()}

    return ConditionRatings(rate)


def _opening(sample: Sample) -> Turn:
    return Turn(sample.dialogues[0].turns[0].user)


def _answered(samples: Sequence[Sample], given: Iterator[str]) -> list[Sample]:
    """Give each sample one dialogue: its opening question with the next answer."""
    turns = [replace(_opening(sample), model=next(given)) for sample in samples]
    return [replace(s, dialogues=(Dialogue((t,)),)) for s, t in zip(samples, turns, strict=True)]


def mean_ratings(annotator: Annotator, samples: Sequence[Sample]) -> Mapping[str, float]:
    """Return the mean rating of each judged aspect over the samples, and the mean of these."""
    tally = Tally()
    for group in annotate_groups(annotator, samples):
        if isinstance(group, Sample):
            tally.add(group)
    metrics = tally.metrics()
    means = {a: metrics[f"feedback/{a}"] for a in ASPECTS if f"feedback/{a}" in metrics}
    return means | ({"mean": fmean(means.values())} if means else {})


def first_samples(data: ShardSet, count: int, processor: Processor) -> list[Sample]:
    """Return the first `count` validation groups of a shard that have images which can be read."""
    index = ShardIndex.open(below(data.location, "validation"))
    groups = index.read_groups(0, 0, int(index.groups[0]))
    return list(islice(with_pictures(groups, processor), count))


def with_pictures(groups: Iterable[Sample | Reject], processor: Processor) -> Iterator[Sample]:
    for group in groups:
        with suppress(Reject):
            if isinstance(group, Sample) and group.images:
                processor.load_images(group.images)
                yield group


def answers(
    assistant: Assistant, prompts: Sequence[Prompt], *, decoding: Mapping[str, Any]
) -> list[str]:
    """Answer each prompt; one that cannot be asked is counted where it is trained on."""
    given = assistant.generate(prompts, rejects={}, **decoding)
    return [responses[0] if responses else "" for responses in given]


class ConditionRatings(L.Callback):
    """Log `val/rating/<condition>/<quantity>` at every validation.

    `rate` answers fixed prompts and rates the answers; it runs on the first rank only.
    """

    def __init__(self, rate: Callable[[], Mapping[str, float]]) -> None:
        self.rate = rate

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        with gathered(pl_module.get_submodule("model")):
            if trainer.is_global_zero:
                figures = {f"val/rating/{name}": value for name, value in self.rate().items()}
                pl_module.log_dict(figures, batch_size=1, rank_zero_only=True)
