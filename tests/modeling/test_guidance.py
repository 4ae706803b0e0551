"""Guided decoding with a cache equals mixing the log-probabilities of two plain forward passes."""

from __future__ import annotations

import pytest
import torch
from modeling_helpers import image, sequence_logits, tiny_lvlm, words
from test_generate import PIXELS, greedy, left_padded, padded

from dress.modeling.decoding import contrasted
from dress.modeling.lvlm import LVLM

TARGETS = [[*words(1, 10, 11), *image(0), *words(12)], words(1, 20)]
CONTRASTS = [[*words(1, 30), *image(0), *words(12, 13, 14)], words(1, 21, 22)]


@torch.no_grad()
def guided(
    model: LVLM,
    target: list[tuple[int, int]],
    contrast: list[tuple[int, int]],
    *,
    weight: float,
    limit: int,
) -> list[int]:
    said: list[int] = []
    while len(said) < limit and model.eos_token_id not in said:
        tail = [(token, -1) for token in said]
        best, worst = (
            sequence_logits(model, [*prompt, *tail], PIXELS)[-1].log_softmax(-1)
            for prompt in (target, contrast)
        )
        said.append(int(((1 + weight) * best - weight * worst).argmax()))
    return said


def test_two_rows_by_hand() -> None:
    # log p: target (1/2, 1/2), contrast (3/4, 1/4); weight 1: log (1/4)/(3/4) and log (1/4)/(1/4)
    scores = torch.tensor([[0.5, 0.5], [0.75, 0.25]]).log()
    mixed = contrasted(scores, 1.0)
    assert torch.allclose(mixed, torch.tensor([[1 / 3, 1.0]] * 2).log())


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_guided_decoding_equals_two_forward_passes(weight: float) -> None:
    torch.set_float32_matmul_precision("highest")
    model = tiny_lvlm().eval()
    expected = [
        guided(model, t, c, weight=weight, limit=8) for t, c in zip(TARGETS, CONTRASTS, strict=True)
    ]
    tokens = model.generate(
        **left_padded([*TARGETS, *CONTRASTS]), pixels=PIXELS, max_new_tokens=8, guidance=weight
    )
    assert tokens[:2].tolist() == padded(expected) == tokens[2:].tolist()
    assert expected != [greedy(model, prompt, limit=8) for prompt in TARGETS]
