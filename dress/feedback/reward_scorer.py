"""A trained reward model as the judge of responses that were just drawn."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from dress.assistant import Assistant
from dress.chat.judging import encode_judged, facts_of
from dress.data.collate import TreeCollator
from dress.errors import InputError, Reject
from dress.types import Dialogue, Encoded, EncodedGroup, Sample


class RewardScorer:
    """Score responses as the model was trained: by text, with facts where it was told facts."""

    def __init__(self, *, assistant: Assistant, collator: TreeCollator, facts: bool) -> None:
        self.model, self.processor = assistant.model, assistant.processor
        self.collator, self.facts = collator, facts

    def check(self, sample: Sample, room: int) -> None:
        """Raise Reject where facts are missing or a response of `room` tokens would not fit."""
        facts = facts_of(sample) if self.facts else ()
        encoded = self._encode(sample, "", facts, images=("",) * len(sample.images))
        if len(encoded.input_ids) + room > self.processor.max_length:
            raise Reject("too long", key=sample.id, detail="there is no room for a judged response")

    @torch.no_grad()
    def __call__(
        self, judged: Sequence[tuple[Sample, Sequence[str]]]
    ) -> Float[Tensor, " response"]:
        """Return the scores of each record's responses, record after record."""
        groups = [self._group(sample, texts) for sample, texts in judged]
        scores = [self.model.scores(batch.to(self.model.device)) for batch in self.collator(groups)]
        return torch.cat(scores)

    def _group(self, sample: Sample, texts: Sequence[str]) -> EncodedGroup:
        images, pixels = self.processor.load_images(sample.images)
        facts = facts_of(sample) if self.facts else ()
        sequences = []
        for number, text in enumerate(texts):
            order = random.Random(f"facts/{sample.id}/{number}")
            shuffled = tuple(order.sample(facts, len(facts)))
            try:
                sequences.append(self._encode(sample, text, shuffled, images=images))
            except Reject as reject:
                raise InputError(
                    f"the reward model cannot read a response to {sample.id} ({reject}): lower "
                    "objective.rollouts.max_new_tokens."
                ) from reject
        return EncodedGroup(sample.id, tuple(sequences), pixels)

    def _encode(
        self, sample: Sample, text: str, facts: tuple[str, ...], *, images: tuple[Hashable, ...]
    ) -> Encoded:
        dialogue = answered(sample, text)
        return encode_judged(self.processor, dialogue, facts, images=images, key=sample.id)


def answered(sample: Sample, text: str) -> Dialogue:
    """Close the open turn of a record."""
    *earlier, last = sample.dialogues[0].turns
    return Dialogue((*earlier, replace(last, model=text)))
