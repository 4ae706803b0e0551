"""What gpu.py trains on: token trees, and the padded rows of a plain trainer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dress.data.collate import TreeCollator
from dress.modeling.head import output_head
from dress.modeling.language import decoder_of
from dress.modeling.lvlm import LVLM
from dress.objectives.conditional_lm import ConditionalLM
from dress.types import Encoded, EncodedGroup, TokenBatch

PADDED_ROWS = 8  # of a pass: per_device_train_batch_size of TRL


def group(model: LVLM, number: int, *, responses: int) -> EncodedGroup:
    rng = random.Random(number)

    def words(count: int) -> list[int]:
        return rng.choices(range(10, 300), k=count)

    image = [model.image_token_id] * model.vision.num_tokens
    prompt, sequences = [1, *image, *words(40)], []
    for _ in range(responses):
        critique, answer = words(rng.randint(40, 80)), words(rng.randint(60, 200))
        ids = np.array(prompt + critique + answer)
        mask = np.arange(len(ids)) >= len(prompt) + len(critique)
        sequences.append(Encoded(ids, mask, (str(number),)))
    size = model.vision.image_size
    pixels = torch.full((size, size, 3), number % 256, dtype=torch.uint8)
    return EncodedGroup(str(number), tuple(sequences), {str(number): pixels})


def collated(
    model: LVLM, groups: Sequence[EncodedGroup], *, device: str, tokens: int | None
) -> tuple[TokenBatch, ...]:
    """Return the micro-batches of a step: trees of so many tokens, or eight padded rows each."""
    collate = partial(
        TreeCollator,
        pad_token_id=model.pad_token_id,
        image_token_id=model.image_token_id,
        num_image_tokens=model.vision.num_tokens,
        share_prefixes=tokens is not None,
        pad_to_multiple=1 if tokens is None else 128,
    )
    rows = PADDED_ROWS
    if tokens is not None:
        (whole,) = collate()(groups)
        rows = max(1, tokens // whole.input_ids.shape[1])
    return tuple(batch.to(device) for batch in collate(rows_per_batch=rows)(groups))


def tree_loss(model: LVLM, batch: TokenBatch) -> Tensor:
    return ConditionalLM()(model, batch).loss_sum


def padded_loss(model: LVLM, batch: TokenBatch) -> Tensor:
    """Score rows of one response each, every one with an image of its own."""

    def run() -> Tensor:
        rows, length = batch.input_ids.shape
        is_image, patches = batch.image_slot >= 0, model.vision.num_tokens
        slot = torch.full_like(batch.image_slot, -1)
        slot[is_image] = torch.arange(rows * patches, device=slot.device)
        embeds = model.embed(batch.input_ids, slot, batch.pixels[batch.sequence_group])
        ends = batch.sequence_end - torch.arange(rows, device=slot.device) * length
        mask = torch.arange(length, device=slot.device) <= ends[:, None]
        states = decoder_of(model.language)(
            inputs_embeds=embeds, attention_mask=mask.long(), use_cache=False
        ).last_hidden_state
        logits = output_head(model.language)(states.flatten(0, 1)[batch.target_node - 1])
        return F.cross_entropy(logits.float(), batch.target_ids, reduction="sum")

    return model(run)
