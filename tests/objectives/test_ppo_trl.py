"""PPO from rewards to the loss equals TRL's first trainer (0.7 to 0.11), the last with methods."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dress.objectives.policy_objective import Experience
from dress.objectives.ppo import PPO
from dress.objectives.rollouts import Rollouts
from dress.objectives.symbolic import SymbolicRewards
from tests.objectives.test_grpo import batch_of, padded

LENGTHS = [3, 1, 4, 2]
TOKENS = sum(LENGTHS)


def trl_trainer() -> Any:
    trainer = pytest.importorskip("trl", reason="trl is not installed")
    try:
        from trl.trainer.ppo_trainer import PPOTrainer
    except (ImportError, RuntimeError):
        pytest.skip(f"trl {trainer.__version__} has no PPOTrainer")
    if not hasattr(PPOTrainer, "compute_advantages"):
        pytest.skip(f"PPOTrainer of trl {trainer.__version__} has no compute_advantages")
    return PPOTrainer


def test_rewards_advantages_and_losses() -> None:
    trl = trl_trainer()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(5, TOKENS, generator=generator, dtype=torch.float64)
    old, values = noise[0] * 0.3 - 2, noise[2]
    new, new_values = old + 0.3 * noise[3], values + 0.5 * noise[4]
    scores = torch.randn(len(LENGTHS), generator=generator, dtype=torch.float64)
    part = Experience(
        batch=batch_of(LENGTHS, [0, 0, 1, 1]),
        log_probs=old,
        reference=old + 0.3 * noise[1],
        rewards=scores,
        values=values,
    )
    ours = PPO(
        rollouts=Rollouts(),
        rewards=SymbolicRewards(),
        kl_form="k1",
        gamma=0.95,
        lam=0.9,
        value_weight=0.3,
    )
    (part,) = ours.advantages([part])
    output = ours.loss(part, new, new_values)

    owner = part.batch.target_seq
    mask = padded(torch.ones(TOKENS, dtype=torch.float64), owner)
    dense = {
        name: padded(value, owner)
        for name, value in {
            "old": old,
            "reference": part.reference,
            "values": values,
            "new": new,
            "new_values": new_values,
        }.items()
    }
    stub: Any = SimpleNamespace(
        kl_ctl=SimpleNamespace(value=0.1),
        config=SimpleNamespace(
            kl_penalty="kl",
            whiten_rewards=False,
            gamma=0.95,
            lam=0.9,
            cliprange=0.2,
            cliprange_value=0.2,
            vf_coef=0.3,
            ratio_threshold=1e9,
        ),
    )
    stub._kl_penalty = lambda *pair: trl._kl_penalty(stub, *pair)
    rewards, *_ = trl.compute_rewards(stub, scores, dense["old"], dense["reference"], mask)
    held, advantages, returns = trl.compute_advantages(stub, dense["values"], rewards, mask)
    # theirs is divided by the deviation of a sample, ours by that of the whole
    advantages = advantages * (TOKENS / (TOKENS - 1)) ** 0.5
    real = mask.bool()
    assert part.advantages is not None and part.returns is not None
    torch.testing.assert_close(part.advantages, advantages[real], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(part.returns, returns[real])
    policy, value, _ = trl.loss(
        stub,
        dense["old"],
        held,
        torch.zeros(*mask.shape, 2, dtype=torch.float64),
        dense["new_values"],
        dense["new"],
        mask,
        advantages,
        returns,
    )
    torch.testing.assert_close(output.loss_sum / output.count, policy + value, rtol=1e-6, atol=1e-7)
