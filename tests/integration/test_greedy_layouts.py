"""Greedy answers are the same tokens, however their prompts are laid out when they are read."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "modeling"))
from modeling_helpers import GPT2, IMAGE, LLAMA, LORA, randomize_adapter, tiny_lvlm
from test_generate import left_padded
from test_layouts_agree import LAYOUTS, group

from dress.data.collate import TreeCollator
from dress.modeling.lvlm import LVLM
from dress.types import Encoded, EncodedGroup

F32, F64 = torch.float32, torch.float64
NEW = 6
ANY = 10  # a token that is only there to be predicted
Answers = list[list[int]]


def prompts(responses: int, images: int) -> list[EncodedGroup]:
    """Prompts of unequal, odd lengths that share images and beginnings; some are text alone."""
    groups = [group(n, responses=responses, images=images, seed=40 + responses) for n in range(2)]
    return [*groups, group(2, responses=2, images=0, seed=40 + responses)]


def grown(prompt: Encoded, answer: list[int]) -> Encoded:
    ids = np.concatenate([prompt.input_ids, answer, [ANY]]).astype(np.int64)
    return replace(prompt, input_ids=ids, loss_mask=np.arange(len(ids)) == len(ids) - 1)


@torch.no_grad()
def read_anew(model: LVLM, groups: list[EncodedGroup], layout: dict) -> Answers:
    """Take the likeliest token after each sequence, then read all of them again with it."""
    collate = TreeCollator(pad_token_id=0, image_token_id=IMAGE, num_image_tokens=4, **layout)
    answers: dict[str, Answers] = {g.id: [[] for _ in g.sequences] for g in groups}
    for step in range(NEW):
        pairs = [(g, zip(g.sequences, answers[g.id], strict=True)) for g in groups]
        now = [replace(g, sequences=tuple(grown(p, a) for p, a in own)) for g, own in pairs]
        for batch in collate(now):
            tokens = model(batch)[batch.target_logit].argmax(-1).tolist()
            owners = [batch.group_ids[i] for i in batch.sequence_group[batch.target_seq].tolist()]
            for owner, token in zip(owners, tokens, strict=True):
                next(a for a in answers[owner] if len(a) == step).append(token)
    return [answer for g in groups for answer in answers[g.id]]


def generated(model: LVLM, groups: list[EncodedGroup], *, batched: bool) -> Answers:
    names = [name for g in groups for name in g.pixels]
    none = torch.zeros(0, 16, 16, 3, dtype=torch.uint8)
    pixels = torch.cat([none, *(image[None] for g in groups for image in g.pixels.values())])
    rows = []
    for prompt in (prompt for g in groups for prompt in g.sequences):
        slots = np.full(len(prompt.input_ids), -1)
        slots[prompt.input_ids == IMAGE] = [
            4 * names.index(name) + patch for name in prompt.images for patch in range(4)
        ]
        rows.append(list(zip(prompt.input_ids.tolist(), slots.tolist(), strict=True)))
    batches = [rows] if batched else [[row] for row in rows]
    return [
        answer
        for batch in batches
        for answer in model.generate(
            **left_padded(batch), pixels=pixels, max_new_tokens=NEW
        ).tolist()
    ]


@pytest.mark.parametrize("language", [GPT2, LLAMA], ids=["gpt2", "llama"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize(
    ("responses", "images", "dtype"),
    [
        (1, 0, F64),
        (2, 1, F32),
        pytest.param(3, 2, F64, marks=pytest.mark.slow),
        pytest.param(5, 1, F32, marks=pytest.mark.slow),
        (8, 2, F64),
    ],
    ids=str,
)
def test_the_same_tokens_from_every_layout(
    responses: int, images: int, lora: dict | None, language: dict, dtype: torch.dtype
) -> None:
    torch.set_float32_matmul_precision("highest")
    model = tiny_lvlm(language, lora=lora).to(dtype).eval()
    if lora:
        randomize_adapter(model)
    model.eos_token_id = -1  # every answer has NEW tokens
    groups = prompts(responses, images)
    expected = generated(model, groups, batched=False)
    assert len({len(p.input_ids) for g in groups for p in g.sequences}) > 2
    assert len({tuple(answer) for answer in expected}) > 2
    assert generated(model, groups, batched=True) == expected
    for name, layout in LAYOUTS.items():
        assert read_anew(model, groups, layout) == expected, name
