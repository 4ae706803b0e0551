"""What PPO and GRPO compute from log-probabilities, values and rewards, token by token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Clipped:
    """The clipped policy loss of each token, and sums of figures about the ratio."""

    loss: Float[Tensor, " token"]
    figures: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)


def clipped_loss(
    log_probs: Float[Tensor, " token"],
    old: Float[Tensor, " token"],
    advantages: Float[Tensor, " token"],
    *,
    clip: float,
) -> Clipped:
    """`max(-A r, -A clip(r, 1 - clip, 1 + clip))`, r = p/p_old (arXiv 1707.06347, equation 7)."""
    log_ratio = log_probs - old
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    with torch.no_grad():
        figures = {
            "clip_fraction": (clipped > plain).sum().to(ratio.dtype),
            "ratio": ratio.detach().sum(),
            "approx_kl": (ratio.detach() - 1 - log_ratio.detach()).sum(),
        }
    return Clipped(torch.maximum(plain, clipped), figures)


EPSILON = 1e-8


@dataclass(frozen=True)
class Moments:
    """Sums over the tokens of a whole rollout, on all ranks."""

    count: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    @property
    def variance(self) -> float:
        return max(self.squares / self.count - self.mean**2, 0.0) if self.count else 0.0


def moments(values: Float[Tensor, " token"]) -> Moments:
    values = values.cpu().double()  # the host waits once, and no GPU computes in float64
    return Moments(float(len(values)), float(values.sum()), float(values.square().sum()))


def whiten(values: Float[Tensor, " token"] | None, over_all: Moments) -> Float[Tensor, " token"]:
    """Shift and scale to mean 0 and variance 1 over the whole rollout."""
    assert values is not None
    return (values - over_all.mean) / (over_all.variance + EPSILON) ** 0.5
