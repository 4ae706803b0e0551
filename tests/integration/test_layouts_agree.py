"""Trees in one row, trees in rows and padded sequences: one loss, one gradient (float64)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "modeling"))
from modeling_helpers import GPT2, IMAGE, LORA, gradients, randomize_adapter, tiny_lvlm

from dress.data.collate import TreeCollator
from dress.modeling.lvlm import LVLM
from dress.objectives.conditional_lm import ConditionalLM
from dress.types import Encoded, EncodedGroup

LAYOUTS = {
    "padded": {"share_prefixes": False},
    "padded in one row": {"share_prefixes": False, "one_row": True},
    "a tree a row": {},
    "packed rows": {"row_tokens": 90},
    "one row": {"one_row": True, "pad_to_multiple": 8},
    "one row, in pieces": {"one_row": True, "rows_per_batch": 1},
}


def group(number: int, *, responses: int, images: int, seed: int) -> EncodedGroup:
    """`images` pictures and odd lengths; the first two responses begin with the same tokens."""
    draw = np.random.default_rng((seed, number))
    prompt = np.concatenate([[1], *[[IMAGE] * 4] * images, draw.integers(10, 40, 5)])
    names = tuple(f"{number}/{image}" for image in range(images))
    begin, sequences = draw.integers(10, 40, 3), []
    for response in range(responses):
        own = draw.integers(10, 40, int(draw.integers(1, 14)))
        answer = np.concatenate([begin[: 3 if response < 2 else 0], own, [2]])
        mask = np.arange(len(prompt) + len(answer)) >= len(prompt)
        sequences.append(Encoded(np.concatenate([prompt, answer]), mask, names))
    pixels = {
        name: torch.from_numpy(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for name in names
    }
    return EncodedGroup(str(number), tuple(sequences), pixels)


def outcome(model: LVLM, groups: list[EncodedGroup], layout: dict) -> tuple[torch.Tensor, dict]:
    collate = TreeCollator(pad_token_id=0, image_token_id=IMAGE, num_image_tokens=4, **layout)
    total = torch.zeros((), dtype=torch.float64)
    for batch in collate(groups):
        loss = ConditionalLM()(model, batch).loss_sum
        loss.backward()
        total += loss.detach()
    found = gradients(model)
    model.zero_grad()
    return total, found


SLOWLY = [pytest.param(number, marks=pytest.mark.slow) for number in range(4, 8)]


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("images", [0, 1, 2])
@pytest.mark.parametrize("responses", [1, 2, 3, 8, *SLOWLY])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str
)
def test_all_layouts_agree(
    responses: int, images: int, lora: dict | None, dtype: torch.dtype, tolerance: float
) -> None:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    model = tiny_lvlm(GPT2, lora=lora).to(dtype).eval()
    if lora:
        randomize_adapter(model)
    model.vision.requires_grad_(False)
    groups = [group(n, responses=responses, images=images, seed=responses) for n in range(3)]
    groups.append(group(3, responses=2, images=0, seed=responses))  # text alone, among pictures
    expected, wanted = outcome(model, groups, LAYOUTS["padded"])
    for name, layout in LAYOUTS.items():
        loss, found = outcome(model, groups, layout)
        torch.testing.assert_close(loss, expected, rtol=tolerance, atol=0, msg=name)
        for parameter, gradient in wanted.items():
            scale = max(1.0, gradient.abs().max().item())
            torch.testing.assert_close(
                found.get(parameter, torch.zeros_like(gradient)),
                gradient,
                rtol=0,
                atol=tolerance * scale,
                msg=f"{name}: {parameter}",
            )
