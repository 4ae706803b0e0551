"""Group relative policy optimisation: PPO with the group of responses in place of a value model.

    A_i = (R_i - mean(R)) / std(R) over the responses to one prompt
    loss = mean over responses of the mean over tokens of
           max(-A r, -A clip(r, 1 +- clip)) + kl * (q/p - 1 - log q/p)

with r = p/p_old, the reference q and the rewards R of PPO (DeepSeekMath, arXiv 2402.03300).

Differences from the paper:
1. rewards are a reward model's score with LLaVA-RLHF's symbolic rewards, as for PPO;
2. the standard deviation is that of a sample (n - 1), with 1e-4 added, as in TRL;
3. the reference is the model that training began with, all along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dress.errors import InputError
from dress.objectives.functional import sequence_sums
from dress.objectives.policy_losses import clipped_loss, kl_penalty
from dress.objectives.policy_objective import Experience, PolicyObjective
from dress.objectives.rollouts import Rollouts
from dress.objectives.symbolic import SymbolicRewards
from dress.settings import Amount, checked
from dress.types import LossOutput

EPSILON = 1e-4


class GRPO(PolicyObjective):
    """Clipped steps towards the better responses of each group; the count is that of responses."""

    has_value = False

    @checked
    def __init__(
        self,
        *,
        rollouts: Rollouts,
        rewards: SymbolicRewards,
        kl: Amount = 0.04,
        clip: Amount = 0.2,
    ) -> None:
        if rollouts.samples < 2:
            raise InputError("objective.rollouts.samples is 1: a group needs 2 or more responses.")
        self.rollouts, self.rewards = rollouts, rewards
        self.kl, self.clip = kl, clip

    def advantages(self, parts: Sequence[Experience], /) -> list[Experience]:
        found = []
        for part in parts:
            relative = group_advantages(part.rewards, part.batch.sequence_group)
            dtype = part.log_probs.dtype
            found.append(replace(part, advantages=relative.to(dtype)[part.batch.target_seq]))
        return found

    def loss(
        self,
        part: Experience,
        log_probs: Float[Tensor, " token"],
        values: Float[Tensor, " token"] | None,
        /,
    ) -> LossOutput:
        assert part.advantages is not None
        policy = clipped_loss(log_probs, part.log_probs, part.advantages, clip=self.clip)
        kl = kl_penalty(log_probs, part.reference, form="k3")
        owner, number = part.batch.target_seq, part.batch.num_sequences
        lengths = sequence_sums(torch.ones_like(log_probs), owner, number)
        tokens = log_probs.new_tensor(log_probs.shape[0])
        per_token = {"policy_loss": policy.loss.detach().sum(), "kl": kl.detach().sum()}
        per_token |= policy.figures
        return LossOutput(
            loss_sum=((policy.loss + self.kl * kl) / lengths[owner]).sum(),
            count=log_probs.new_tensor(number),
            metrics=per_token | {f"{name}_count": tokens for name in per_token},
        )


def group_advantages(
    rewards: Float[Tensor, " response"], groups: Int[Tensor, " response"]
) -> Float[Tensor, " response"]:
    """Standardise rewards within each group; equal ones give 0."""
    found = torch.zeros_like(rewards)
    for group in groups.unique():
        own = groups == group
        found[own] = (rewards[own] - rewards[own].mean()) / (rewards[own].std() + EPSILON)
    return found
