"""The reward model's loss equals numbers by hand and the published formulas, written out again."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from dress.errors import InputError
from dress.objectives.calibration import (
    calibration_curve,
    calibration_error,
    calibration_sums,
)
from dress.objectives.reward import PairwiseReward, reward_loss


def test_by_hand() -> None:
    chosen, rejected = torch.tensor([1.0, 0.0, -1.0]), torch.tensor([0.0, 0.0, 2.0])
    expected = [
        math.log(1 + math.exp(-1)) + 0.5 * 1,
        math.log(2),
        3 + math.log(1 + math.exp(-3)) + 0.5 * 1,
    ]
    found = reward_loss(chosen, rejected, centring=0.5).tolist()
    assert found == pytest.approx(expected, rel=1e-6)


def test_it_is_the_original_and_trl_for_a_single_pair() -> None:
    """LLaVA-RLHF's code: BCE with logits r1 - r0, target 1 where output 1 is preferred.

    TRL's RewardTrainer (center_rewards_coefficient null): -logsigmoid(chosen - rejected).mean().
    """
    generator = torch.Generator().manual_seed(0)
    for first, second in torch.randn(20, 2, generator=generator, dtype=torch.float64) * 3:
        for choice in (0.0, 1.0):
            chosen, rejected = (second, first) if choice else (first, second)
            cross_entropy = F.binary_cross_entropy_with_logits(
                second - first, torch.tensor(choice).double()
            )
            original = cross_entropy + 1e-3 * (first + second).mean().abs()
            ours = reward_loss(chosen[None], rejected[None], centring=1e-3)
            torch.testing.assert_close(ours[0], original, rtol=1e-12, atol=1e-14)
            trl = -torch.log(torch.sigmoid(chosen - rejected))
            ours = reward_loss(chosen[None], rejected[None], centring=0.0)
            torch.testing.assert_close(ours[0], trl, rtol=1e-9, atol=1e-12)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(InputError, match="centring is -1: give a number, 0 or more"):
        PairwiseReward(centring=-1)


def test_calibration_by_hand() -> None:
    # sigmoid: 0.5, 0.731 (right), 0.731 (wrong), 0.881, 0.953 (wrong), 1.0
    margin = torch.tensor([0.0, 1.0, -1.0, 2.0, -3.0, 50.0], dtype=torch.float64)
    sums = calibration_sums(margin)
    metrics = {
        f"val/{name}": value.item() / sums.get(f"{name}_count", torch.tensor(6)).item()
        for name, value in sums.items()
        if not name.endswith("_count") and sums.get(f"{name}_count", 1)
    }
    curve = calibration_curve(metrics)
    expected = [
        (0.5, 0.0, 1 / 6),  # a tie is not right
        (0.731059, 0.5, 2 / 6),
        (0.880797, 1.0, 1 / 6),
        ((0.952574 + 1) / 2, 0.5, 2 / 6),
    ]
    torch.testing.assert_close(torch.tensor(curve), torch.tensor(expected), rtol=0, atol=1e-5)
    by_hand = (0.5 + 2 * 0.231059 + (1 - 0.880797) + 2 * 0.476287) / 6
    assert calibration_error(curve) == pytest.approx(by_hand, abs=1e-5)


def test_calibration_adds_up_over_batches() -> None:
    margin = torch.randn(30, generator=torch.Generator().manual_seed(0)) * 2
    whole = calibration_sums(margin)
    parts = [calibration_sums(part) for part in margin.split([7, 0, 23])]
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts), value)
