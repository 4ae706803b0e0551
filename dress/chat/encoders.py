"""Sample to EncodedGroup: which sequences a record gives and which of their turns carry loss."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Literal, Protocol, runtime_checkable

from dress.chat.condition import Condition
from dress.chat.processor import Processor
from dress.errors import Reject
from dress.settings import Positive, checked
from dress.types import RATINGS, Dialogue, Encoded, EncodedGroup, Feedback, Requires, Sample, Turn

History = Literal["all", "none"]
Responses = Literal["all", "best"]
FeedbackOf = Literal["own", "other"]
LossTurns = Literal["all", "last", "improved", "sound"]


@runtime_checkable
class Encoder(Protocol):
    """Encode one record; `requires` names the kind of record it needs."""

    requires: Requires

    def __call__(self, sample: Sample, *, epoch: int) -> EncodedGroup: ...


class InstructionEncoder:
    """Encode each dialogue as one unconditioned sequence with loss on the model's turns."""

    requires: Requires = "dialogues"

    @checked
    def __init__(self, *, processor: Processor, loss_turns: LossTurns = "all") -> None:
        self.processor, self.loss_turns = processor, loss_turns

    def __call__(self, sample: Sample, *, epoch: int) -> EncodedGroup:
        images, pixels = self.processor.load_images(sample.images)
        sequences = tuple(
            self.processor.encode(dialogue.turns, images=images, supervised=turns)
            for dialogue in sample.dialogues
            if (turns := supervised_turns(dialogue, self.loss_turns, key=sample.id))
        )
        return EncodedGroup(sample.id, sequences, pixels)


class CritiqueEncoder:
    """Encode each turn as one sequence: what came before, its feedback, then its response.

    Earlier turns' feedback is not rendered; a turn without feedback is left unconditioned.
    `responses="best"` keeps the best-rated of a group: rejection sampling, the plain baseline.
    `history="none"` answers the first question with each turn's response as if nothing had been
    said in between: the control for what turns of feedback add. `feedback_of="other"` gives each
    response the feedback on the next one of its group: the control for what feedback says.
    Above 1, the responses of a group whose feedback is the best possible count `perfect_weight`
    times together, each at least once, and keep all aspects of it, as they are asked for at test:
    of what a model is bad at it has sampled few of them. A response after the first counts
    `later_weight` times: most of its words are those of the one before. A token tree computes
    what is the same once.
    """

    requires: Requires = "feedback"

    @checked
    def __init__(
        self,
        *,
        processor: Processor,
        condition: Condition,
        seed: int,
        loss_turns: LossTurns = "all",
        responses: Responses = "all",
        history: History = "all",
        feedback_of: FeedbackOf = "own",
        perfect_weight: Positive = 1,
        later_weight: Positive = 1,
    ) -> None:
        self.processor, self.condition, self.seed = processor, condition, seed
        self.perfect_weight, self.later_weight = perfect_weight, later_weight
        self.loss_turns, self.responses = loss_turns, responses
        self.history, self.feedback_of = history, feedback_of

    def __call__(self, sample: Sample, *, epoch: int) -> EncodedGroup:
        if not any(turn.feedback for dialogue in sample.dialogues for turn in dialogue.turns):
            raise Reject("no feedback", key=sample.id, detail="critiques condition on feedback")
        images, pixels = self.processor.load_images(sample.images)
        dialogues = self._chosen(sample)
        judged = [
            (number, turn, self._feedback(dialogues, number, turn))
            for number, dialogue in enumerate(dialogues)
            for turn in supervised_turns(dialogue, self.loss_turns, key=sample.id)
        ]
        share = self.perfect_weight / max(1, sum(_is_best(feedback) for *_, feedback in judged))
        sequences: list[Encoded] = []
        for number, turn, feedback in judged:
            is_best = _is_best(feedback)
            condition = self.condition.sample(
                feedback,
                seed=self.seed,
                epoch=epoch,
                key=f"{sample.id}/{number}/{turn}",
                whole=is_best and self.perfect_weight > 1,
            )
            encoded = self._encode_turn(dialogues[number], turn, condition=condition, images=images)
            times = (max(1, round(share)) if is_best else 1) * (self.later_weight if turn else 1)
            sequences += [encoded] * times
        return EncodedGroup(sample.id, tuple(sequences), pixels)

    def _chosen(self, sample: Sample) -> Sequence[Dialogue]:
        """Keep all dialogues, or those whose last response is rated best within the group."""
        if self.responses == "all":
            return sample.dialogues
        ratings = [_final_rating(dialogue) for dialogue in sample.dialogues]
        return [d for d, r in zip(sample.dialogues, ratings, strict=True) if r == max(ratings)]

    def _feedback(self, dialogues: Sequence[Dialogue], number: int, turn: int) -> Feedback | None:
        if self.feedback_of == "other":
            other = dialogues[(number + 1) % len(dialogues)].turns
            return other[min(turn, len(other) - 1)].feedback
        return dialogues[number].turns[turn].feedback

    def _encode_turn(
        self, dialogue: Dialogue, turn: int, *, condition: str, images: tuple[Hashable, ...]
    ) -> Encoded:
        turns = dialogue.turns[: turn + 1]
        if self.history == "none":
            turns = (replace(dialogue.turns[0], model=dialogue.turns[turn].model),)
        last = len(turns) - 1
        encoded = self.processor.encode(
            turns, images=images, condition=self.condition.at(last, condition), supervised={last}
        )
        return replace(encoded, turn=last)


def _final_rating(dialogue: Dialogue) -> float:
    feedback = dialogue.turns[-1].feedback
    return feedback.mean_rating if feedback else 0.0


def supervised_turns(dialogue: Dialogue, rule: LossTurns, *, key: str) -> tuple[int, ...]:
    """Return the indices of the turns with loss; Reject where a turn has no response.

    `improved` takes the turns after the first that are rated above the one before, or the best
    possible: what a revision can teach. `sound` takes the turns that are rated the best possible,
    and those that stay with what was said before unless its own refinement called for a change. A
    dialogue may have none.
    """
    turns = dialogue.turns
    if any(turn.model is None for turn in turns):
        raise Reject("no response", key=key, detail="a turn has nothing to learn from")
    if rule == "last":
        return (len(turns) - 1,)
    if rule == "all":
        return tuple(range(len(turns)))
    if rule == "sound":
        return tuple(
            i
            for i, turn in enumerate(turns)
            if _is_perfect(turn) or (i and _stands_firm(turns[i - 1], turn))
        )
    return tuple(i for i in range(1, len(turns)) if _improved(turns[i - 1], turns[i]))


def _is_best(feedback: Feedback | None) -> bool:
    return feedback is not None and bool(feedback.judgements) and feedback.is_perfect


def _is_perfect(turn: Turn) -> bool:
    return turn.feedback is not None and turn.feedback.is_perfect


def _stands_firm(before: Turn, after: Turn) -> bool:
    called_for = before.feedback.refinement if before.feedback else ""
    return after.model == before.model and not (called_for and after.user == called_for)


def _improved(before: Turn, after: Turn) -> bool:
    if after.feedback is None or before.feedback is None:
        return False
    rating = after.feedback.mean_rating
    return rating > before.feedback.mean_rating or rating == max(RATINGS)
