"""The interface of an annotator: feedback on one response; and a count of what was said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal, Protocol, runtime_checkable

from dress.errors import Reject
from dress.types import ASPECTS, RATINGS, Dialogue, Feedback, Sample


@runtime_checkable
class Annotator(Protocol):
    """Judge the last turn of a dialogue about a sample, of whose annotations it knows the truth."""

    def annotate(self, sample: Sample, dialogue: Dialogue) -> Feedback: ...


@runtime_checkable
class Misleading(Annotator, Protocol):
    """Can also say what does not concern a response: a model has to look before it obeys.

    That is a hint which is not true of it (`wrong`), or one that answers to another question about
    the same image (`aside`), None where there is no such question.
    """

    def mislead(
        self, sample: Sample, dialogue: Dialogue, *, kind: Literal["wrong", "aside"]
    ) -> str | None: ...


@runtime_checkable
class BatchAnnotator(Annotator, Protocol):
    """Judges many groups at a time, in order.

    A group that it cannot judge becomes a Reject; one that is a Reject already is passed on.
    """

    def annotate_many(self, samples: Iterable[Sample | Reject]) -> Iterator[Sample | Reject]: ...

    def metrics(self) -> dict[str, float]: ...


def annotate_alone(annotator: BatchAnnotator, sample: Sample, dialogue: Dialogue) -> Feedback:
    """Judge one dialogue by an annotator of many; a Reject is raised."""
    [outcome] = annotator.annotate_many([replace(sample, dialogues=(dialogue,))])
    if isinstance(outcome, Reject):
        raise outcome
    feedback = outcome.dialogues[0].turns[-1].feedback
    assert feedback is not None
    return feedback


def annotate_groups(
    annotator: Annotator, groups: Iterable[Sample | Reject]
) -> Iterator[Sample | Reject]:
    """Judge the last response of every dialogue of each group, many at a time where possible."""
    if isinstance(annotator, BatchAnnotator):
        yield from annotator.annotate_many(groups)
        return
    for group in groups:
        if isinstance(group, Reject):
            yield group
            continue
        try:
            yield replace(
                group, dialogues=tuple(_annotated(annotator, group, d) for d in group.dialogues)
            )
        except Reject as reject:
            yield reject.at(where="annotator", key=group.id)


def _annotated(annotator: Annotator, sample: Sample, dialogue: Dialogue) -> Dialogue:
    feedback = annotator.annotate(sample, dialogue)
    return Dialogue((*dialogue.turns[:-1], replace(dialogue.turns[-1], feedback=feedback)))


class Tally:
    """Mean rating per aspect and the share of each rating, over all responses."""

    def __init__(self) -> None:
        self.counts = {(aspect, rating): 0 for aspect in ASPECTS for rating in RATINGS}
        self.responses = 0

    def add(self, sample: Sample) -> None:
        for dialogue in sample.dialogues:
            feedback = dialogue.turns[-1].feedback
            assert feedback is not None
            self.responses += 1
            for aspect, judgement in feedback.judgements.items():
                self.counts[aspect, judgement.rating] += 1

    def metrics(self) -> dict[str, float]:
        figures = {"feedback/responses": float(self.responses)}
        for aspect in ASPECTS:
            shares = {rating: self.counts[aspect, rating] for rating in RATINGS}
            if total := sum(shares.values()):
                mean = sum(rating * n for rating, n in shares.items()) / total
                figures[f"feedback/{aspect}"] = mean
                figures |= {f"feedback/{aspect}_{r}": n / total for r, n in shares.items()}
        return figures
