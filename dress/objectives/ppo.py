"""Proximal policy optimisation on sampled responses, as LLaVA-RLHF trains with its reward model.

    reward of token t:  -kl * KL_t, at the last token also the score and the symbolic rewards
    loss:  mean over tokens of max(-A r, -A clip(r, 1 +- clip)) + value_weight * value loss

with r = p/p_old and advantages A by GAE (arXiv 1707.06347, 1506.02438; LLaVA-RLHF: 2309.14525).

Differences from LLaVA-RLHF:
1. the score stands at the last token of a response, not in a last column of padding;
2. whitening and all means are over the tokens of responses alone, not over padding;
3. responses are cut at their end token; a "?" does not cut them;
4. rewards are not multiplied by 10 behind the scenes;
5. all models run in the precision they were trained in;
6. records that are too long are rejects, so that image, question and answer stay together;
7. several responses are drawn to each prompt, which share a token tree; the minibatches of a
   rollout are the same in each of its epochs;
8. the learning rate follows the steps of the optimizer, not the rollouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add

import torch
from jaxtyping import Float
from torch import Tensor

from dress.distributed import gather
from dress.objectives.policy_losses import (
    KLForm,
    clipped_loss,
    gae,
    kl_penalty,
    moments,
    token_rewards,
    value_losses,
    whiten,
)
from dress.objectives.policy_objective import Experience, PolicyObjective
from dress.objectives.rollouts import Rollouts
from dress.objectives.symbolic import SymbolicRewards
from dress.settings import Amount, Share, checked
from dress.types import LossOutput


class PPO(PolicyObjective):
    """Clipped steps towards responses that a reward model scores high, near the reference.

    The count of its loss is the number of tokens.
    """

    has_value = True

    @checked
    def __init__(
        self,
        *,
        rollouts: Rollouts,
        rewards: SymbolicRewards,
        kl: Amount = 0.1,
        kl_form: KLForm = "clamped",
        gamma: Share = 1.0,
        lam: Share = 1.0,
        clip: Amount = 0.2,
        value_clip: Amount = 0.2,
        value_weight: Amount = 0.1,
    ) -> None:
        self.rollouts, self.rewards = rollouts, rewards
        self.kl, self.kl_form = kl, kl_form
        self.gamma, self.lam = gamma, lam
        self.clip, self.value_clip, self.value_weight = clip, value_clip, value_weight

    def advantages(self, parts: Sequence[Experience], /) -> list[Experience]:
        found = []
        for part in parts:
            assert part.values is not None
            rewards = token_rewards(
                -self.kl * kl_penalty(part.log_probs, part.reference, form=self.kl_form),
                part.rewards,
                part.batch.target_seq,
            )
            advantages = gae(
                rewards, part.values, part.batch.target_seq, gamma=self.gamma, lam=self.lam
            )
            found.append(replace(part, advantages=advantages, returns=advantages + part.values))
        own = reduce(add, (moments(p.advantages) for p in found if p.advantages is not None))
        over_all = reduce(add, gather(own))
        return [replace(p, advantages=whiten(p.advantages, over_all)) for p in found]

    def loss(
        self,
        part: Experience,
        log_probs: Float[Tensor, " token"],
        values: Float[Tensor, " token"] | None,
        /,
    ) -> LossOutput:
        assert part.advantages is not None and part.returns is not None
        assert values is not None and part.values is not None
        policy = clipped_loss(log_probs, part.log_probs, part.advantages, clip=self.clip)
        plain, clipped = value_losses(values, part.values, part.returns, clip=self.value_clip)
        value = torch.maximum(plain, clipped)
        return LossOutput(
            loss_sum=policy.loss.sum() + self.value_weight * value.sum(),
            count=log_probs.new_tensor(log_probs.shape[0]),
            metrics={
                "policy_loss": policy.loss.detach().sum(),
                "value_loss": value.detach().sum(),
                "value_clip_fraction": (clipped > plain).sum().to(value.dtype),
                **policy.figures,
            },
        )
