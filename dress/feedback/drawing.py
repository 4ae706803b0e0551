"""Draw responses from a policy and join them to their prompts as sequences to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from dress.assistant import Assistant
from dress.chat.prompts import PromptGroup
from dress.data.collate import TreeCollator
from dress.modeling.decoding import Said
from dress.objectives.rollouts import Rollouts
from dress.types import Encoded, EncodedGroup, TokenBatch


@dataclass(frozen=True)
class Drawn:
    """The responses to one prompt: tokens up to and with the end token, where there is one.

    `log_probs` are those with which the tokens were drawn.
    """

    group: PromptGroup
    tokens: tuple[tuple[int, ...], ...]
    log_probs: tuple[tuple[float, ...], ...]
    texts: tuple[str, ...]
    ended: tuple[bool, ...]


def draw(
    assistant: Assistant, groups: Sequence[PromptGroup], *, rollouts: Rollouts, seed: int
) -> list[Drawn]:
    """Sample `rollouts.samples` responses to each prompt from the model's own distribution."""
    found: dict[int, Drawn] = {}
    end = assistant.model.eos_token_id
    order = sorted(range(len(groups)), key=lambda i: len(groups[i].sequences[0].input_ids))
    for start in range(0, len(order), rollouts.batch_size):
        rows = order[start : start + rollouts.batch_size]
        pixels = {name: image for i in rows for name, image in groups[i].pixels.items()}
        batch = assistant.collate([groups[i].sequences[0] for i in rows], pixels)
        said = Said()
        ids = assistant.model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            image_slot=batch.image_slot,
            pixels=batch.pixels,
            max_new_tokens=rollouts.max_new_tokens,
            temperature=1.0,
            num_return_sequences=rollouts.samples,
            seed=seed + start,
            said=said,
        ).tolist()
        noted = said.row_by_row(rows=len(ids))
        for place, i in enumerate(rows):
            places = slice(place * rollouts.samples, (place + 1) * rollouts.samples)
            own = ids[places]
            cut = tuple(tuple(row[: row.index(end) + 1] if end in row else row) for row in own)
            found[i] = Drawn(
                group=groups[i],
                tokens=cut,
                log_probs=tuple(
                    tuple(p[: len(r)]) for p, r in zip(noted[places], cut, strict=True)
                ),
                texts=tuple(assistant.processor.decode(row) for row in cut),
                ended=tuple(row[-1] == end for row in cut),
            )
    return [found[i] for i in range(len(groups))]


def as_group(drawn: Drawn, reader: Assistant | None = None) -> EncodedGroup:
    """Join prompt and responses; the prompt as the policy read it, or as `reader` reads it."""
    prompt, pixels = drawn.group.sequences[0], drawn.group.pixels
    if reader is not None:
        sample = drawn.group.sample
        images, pixels = reader.processor.load_images(sample.images)
        prompt = reader.processor.encode(sample.dialogues[0].turns, images=images, prompt_only=True)
    sequences = tuple(_continued(prompt, response) for response in drawn.tokens)
    return EncodedGroup(drawn.group.id, sequences, pixels)


def _continued(prompt: Encoded, response: tuple[int, ...]) -> Encoded:
    ids = np.concatenate([prompt.input_ids, np.array(response, dtype=np.int64)])
    mask = np.arange(len(ids)) >= len(prompt.input_ids)
    return replace(prompt, input_ids=ids, loss_mask=mask)


def one_batch(
    collator: TreeCollator, groups: Sequence[EncodedGroup], device: torch.device
) -> TokenBatch:
    (batch,) = collator(groups)
    return batch.to(device)
