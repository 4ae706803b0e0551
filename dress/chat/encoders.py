"""Sample to EncodedGroup: which sequences a record gives and which of their turns carry loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, get_args, runtime_checkable

from dress.chat.condition import Condition
from dress.chat.processor import Processor
from dress.data.rejects import Reject
from dress.errors import InputError
from dress.types import Dialogue, Encoded, EncodedGroup, Sample

LossTurns = Literal["all", "last"]
Responses = Literal["all", "best"]
Requires = Literal["dialogues", "feedback"]


@runtime_checkable
class Encoder(Protocol):
    """Encode one record; `requires` names the kind of record it needs."""

    requires: Requires

    def __call__(self, sample: Sample, *, epoch: int) -> EncodedGroup: ...


class InstructionEncoder:
    """Encode each dialogue as one unconditioned sequence with loss on the model's turns."""

    requires: Requires = "dialogues"

    def __init__(self, *, processor: Processor, loss_turns: LossTurns = "all") -> None:
        self.processor, self.loss_turns = processor, _check_loss_turns(loss_turns)

    def __call__(self, sample: Sample, *, epoch: int) -> EncodedGroup:
        images, pixels = self.processor.load_images(sample.images)
        sequences = tuple(
            self.processor.encode(
                dialogue.turns,
                images=images,
                supervised=_loss_turns(sample, dialogue, self.loss_turns),
            )
            for dialogue in sample.dialogues
        )
        return EncodedGroup(sample.id, sequences, pixels)


class CritiqueEncoder:
    """Encode each turn as one sequence: what came before, its feedback, then its response.

    Earlier turns' feedback is not rendered; a turn without feedback is left unconditioned.
    `responses="best"` keeps the best-rated of a group: rejection sampling, the plain baseline.
    """

    requires: Requires = "feedback"

    def __init__(
        self,
        *,
        processor: Processor,
        condition: Condition,
        seed: int,
        loss_turns: LossTurns = "all",
        responses: Responses = "all",
    ) -> None:
        if responses not in get_args(Responses):
            raise InputError(
                f"responses is {responses!r}: choose one of {', '.join(get_args(Responses))}."
            )
        self.processor, self.condition, self.seed = processor, condition, seed
        self.loss_turns, self.responses = _check_loss_turns(loss_turns), responses

    def __call__(self, sample: Sample, *, epoch: int) -> EncodedGroup:
        if not any(turn.feedback for dialogue in sample.dialogues for turn in dialogue.turns):
            raise Reject("no feedback", key=sample.id, detail="critiques condition on feedback")
        images, pixels = self.processor.load_images(sample.images)
        sequences = tuple(
            self._encode_turn(
                dialogue, turn, images=images, epoch=epoch, key=f"{sample.id}/{number}/{turn}"
            )
            for number, dialogue in enumerate(self._chosen(sample))
            for turn in _loss_turns(sample, dialogue, self.loss_turns)
        )
        return EncodedGroup(sample.id, sequences, pixels)

    def _chosen(self, sample: Sample) -> Sequence[Dialogue]:
        """Keep all dialogues, or those whose last response is rated best within the group."""
        if self.responses == "all":
            return sample.dialogues
        ratings = [_final_rating(dialogue) for dialogue in sample.dialogues]
        return [d for d, r in zip(sample.dialogues, ratings, strict=True) if r == max(ratings)]

    def _encode_turn(
        self, dialogue: Dialogue, turn: int, *, images: tuple[str, ...], epoch: int, key: str
    ) -> Encoded:
        feedback = dialogue.turns[turn].feedback
        return self.processor.encode(
            dialogue.turns[: turn + 1],
            images=images,
            condition=self.condition.sample(feedback, seed=self.seed, epoch=epoch, key=key),
            supervised={turn},
        )


def _final_rating(dialogue: Dialogue) -> float:
    feedback = dialogue.turns[-1].feedback
    return feedback.mean_rating if feedback else 0.0


def _loss_turns(sample: Sample, dialogue: Dialogue, loss_turns: LossTurns) -> range:
    """Return the indices of the turns that carry loss, having checked that each has a response."""
    if any(turn.model is None for turn in dialogue.turns):
        raise Reject("no response", key=sample.id, detail="a turn has nothing to learn from")
    last = len(dialogue.turns) - 1
    return range(0 if loss_turns == "all" else last, last + 1)


def _check_loss_turns(loss_turns: LossTurns) -> LossTurns:
    if loss_turns not in get_args(LossTurns):
        raise InputError(
            f"loss_turns is {loss_turns!r}: choose one of {', '.join(get_args(LossTurns))}."
        )
    return loss_turns
