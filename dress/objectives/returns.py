"""From rewards to advantages and a loss of values, token by token of responses laid end to end."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

KLForm = Literal["clamped", "k1", "k3"]


def kl_penalty(
    log_probs: Float[Tensor, " token"], reference: Float[Tensor, " token"], *, form: KLForm
) -> Float[Tensor, " token"]:
    """Estimate KL(policy || reference) at each sampled token.

    k1 is log p/q; `clamped` takes it as 0 where it is negative, as LLaVA-RLHF does; k3 is
    q/p - 1 - log q/p (http://joschu.net/blog/kl-approx.html).
    """
    log_ratio = log_probs - reference
    if form == "k3":
        return (-log_ratio).expm1() + log_ratio
    return log_ratio.clamp(min=0) if form == "clamped" else log_ratio


def token_rewards(
    penalty: Float[Tensor, " token"],
    rewards: Float[Tensor, " response"],
    target_seq: Int[Tensor, " token"],
) -> Float[Tensor, " token"]:
    """Add each response's reward to the penalty at its last token."""
    last = torch.ones_like(target_seq, dtype=torch.bool)
    last[:-1] = target_seq[1:] != target_seq[:-1]
    return penalty + torch.where(last, rewards.to(penalty.dtype)[target_seq], 0.0)


def gae(
    rewards: Float[Tensor, " token"],
    values: Float[Tensor, " token"],
    target_seq: Int[Tensor, " token"],
    *,
    gamma: float,
    lam: float,
) -> Float[Tensor, " token"]:
    """Generalised advantage estimation within each response; the value after its end is 0."""
    if not len(rewards):
        return torch.zeros_like(rewards)
    lengths = torch.unique_consecutive(target_seq, return_counts=True)[1]
    # each response backwards, so that padding comes after its first token and reaches nothing
    flipped = [
        pad_sequence([part.flip(0) for part in flat.split(lengths.tolist())], batch_first=True)
        for flat in (rewards, values)
    ]
    found = torch.zeros_like(flipped[0])
    advantage = next_value = torch.zeros_like(flipped[0][:, 0])
    for step, (reward, value) in enumerate(zip(flipped[0].T, flipped[1].T, strict=True)):
        advantage = reward + gamma * next_value - value + gamma * lam * advantage
        found[:, step] = advantage
        next_value = value
    return torch.cat(
        [row[:length].flip(0) for row, length in zip(found, lengths.tolist(), strict=True)]
    )


def value_losses(
    values: Float[Tensor, " token"],
    old: Float[Tensor, " token"],
    returns: Float[Tensor, " token"],
    *,
    clip: float,
) -> tuple[Float[Tensor, " token"], Float[Tensor, " token"]]:
    """Half the squared error, plain and with the new value kept within `clip` of the old one."""
    near = old + (values - old).clamp(-clip, clip)
    return 0.5 * (values - returns).square(), 0.5 * (near - returns).square()
