"""The reward model's loss equals numbers by hand and the published formulas, written out again."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from dress.errors import InputError
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
    with pytest.raises(InputError, match=r"objective\.centring"):
        PairwiseReward(centring=-1)
