"""Prompts to draw responses to: the open turn of a record, which its judge knows whole."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from dress.chat.processor import Processor
from dress.errors import Reject
from dress.records import finite
from dress.types import Dialogue, EncodedGroup, Requires, Sample


class Judge(Protocol):
    """What scores responses."""

    def check(self, sample: Sample, room: int, /) -> None:
        """Raise Reject where a response of `room` tokens could not be read."""


@dataclass(frozen=True)
class PromptGroup(EncodedGroup):
    """A group of one sequence, the prompt; `sample` is its record with the last turn open."""

    sample: Sample = field(kw_only=True)


@dataclass(frozen=True)
class PromptGroups:
    """One rank's prompts of one step, in place of a TokenBatch."""

    groups: tuple[PromptGroup, ...]

    @property
    def usable(self) -> bool:
        return bool(self.groups)

    def to(self, device: Any, non_blocking: bool = False) -> PromptGroups:
        """Stay on the host: what is made of them is moved."""
        return self


def collate_prompts(groups: list[PromptGroup]) -> tuple[PromptGroups, ...]:
    return (PromptGroups(tuple(groups)),)


class PromptEncoder:
    """Encode the first dialogue up to its last question, as a policy will read it.

    A prompt that leaves fewer than `room` tokens for a response is a reject, and so is one where
    `judge` could not read a response of that length.
    """

    requires: Requires = "prompts"
    collate = staticmethod(collate_prompts)

    def __init__(self, *, processor: Processor, room: int, judge: Judge) -> None:
        self.processor, self.room, self.judge = processor, room, judge

    def __call__(self, sample: Sample, *, epoch: int) -> PromptGroup:
        *earlier, last = sample.dialogues[0].turns
        opened = replace(sample, dialogues=(Dialogue((*earlier, replace(last, model=None))),))
        images, pixels = self.processor.load_images(sample.images)
        encoded = self.processor.encode(opened.dialogues[0].turns, images=images, prompt_only=True)
        if len(encoded.input_ids) + self.room > self.processor.max_length:
            raise Reject("too long", key=sample.id, detail="there is no room for a response")
        if finite(sample.annotations.get("length_bonus", 1.0)) is None:
            raise Reject("invalid record", key=sample.id, detail="annotations.length_bonus")
        self.judge.check(opened, self.room)
        return PromptGroup(sample.id, (encoded,), pixels, sample=opened)
