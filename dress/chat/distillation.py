"""Each response twice: to the question alone, and to the question with what a teacher is told."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal

import numpy as np

from dress.chat.condition import Condition
from dress.chat.encoders import supervised_turns
from dress.chat.processor import Processor, behind_same_turns
from dress.errors import Reject
from dress.settings import checked
from dress.types import Dialogue, Encoded, EncodedGroup, Requires, Sample, Turn

Told = Literal["best", "feedback"]


class SelfDistillationEncoder:
    """Encode the last response of each dialogue for a student and for its teacher.

    The student sees the question. The teacher sees `told` as well: the `best` condition, for a
    model that has learned to answer under conditions, or the `feedback` on this very response, for
    one that can take advice. Both stand in one tree, so that they share image and question;
    `EncodedGroup.pairs` holds student and teacher.
    """

    requires: Requires = "feedback"

    @checked
    def __init__(self, *, processor: Processor, condition: Condition, told: Told = "best") -> None:
        self.processor, self.condition, self.told = processor, condition, told

    def __call__(self, sample: Sample, *, epoch: int) -> EncodedGroup:
        images, pixels = self.processor.load_images(sample.images)
        sequences: list[Encoded] = []
        for dialogue in sample.dialogues:
            student, teacher = self._both(dialogue, images, key=sample.id)
            if not np.array_equal(_response(student), _response(teacher)):
                raise Reject("too long", key=sample.id, detail="of what the teacher is told")
            sequences += [student, teacher]
        pairs = tuple((number, number + 1) for number in range(0, len(sequences), 2))
        return EncodedGroup(sample.id, tuple(sequences), pixels, pairs)

    def _both(self, dialogue: Dialogue, images: tuple[Hashable, ...], *, key: str) -> list[Encoded]:
        supervised = supervised_turns(dialogue, "last", key=key)
        told = self._told(dialogue.turns[-1], key=key)

        def encoded(dropped: int) -> list[Encoded]:
            return [
                self.processor.encode(
                    dialogue.turns,
                    images=images,
                    condition=condition,
                    supervised=supervised,
                    dropped=dropped,
                )
                for condition in ("", told)
            ]

        return behind_same_turns(encoded)

    def _told(self, turn: Turn, *, key: str) -> str:
        if self.told == "best":
            return self.condition.target("best")
        if turn.feedback is None:
            raise Reject("no feedback", key=key, detail="the teacher is told the feedback")
        return self.condition.text(turn.feedback)


def _response(encoded: Encoded) -> np.ndarray:
    return encoded.input_ids[encoded.loss_mask]
