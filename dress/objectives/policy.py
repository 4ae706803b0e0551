"""What PPO and GRPO have in common: experience, rewards per response, and the clipped ratio.

Tokens are those of responses alone, flat, one response after the other; `target_seq` of their
batch says whose they are. There is no padding among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from dress.errors import InputError
from dress.objectives.base import Requires
from dress.objectives.symbolic import SymbolicRewards
from dress.types import LossOutput, Movable, TokenBatch


@dataclass(frozen=True)
class Experience(Movable):
    """The responses of one forward pass with what was known of them when they were drawn.

    `critic` holds the same responses, in the same order, as the value model reads them.
    """

    batch: TokenBatch
    log_probs: Float[Tensor, " token"]
    reference: Float[Tensor, " token"]
    rewards: Float[Tensor, " response"]  # the reward model's score and the symbolic rewards
    critic: TokenBatch | None = None
    values: Float[Tensor, " token"] | None = None
    advantages: Float[Tensor, " token"] | None = None
    returns: Float[Tensor, " token"] | None = None


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """How responses are drawn, always from the policy itself (temperature 1), and when to stop.

    They are learned from `epochs` times in `minibatches` steps of the optimizer each. A run stops
    where the mean KL per response, in nats, or the share of responses without an end is above its
    limit.
    """

    samples: int = 4
    max_new_tokens: int = 96
    batch_size: int = 128
    epochs: int = 2
    minibatches: int = 2
    max_kl: float = 50.0
    max_unfinished: float = 0.9

    def __post_init__(self) -> None:
        for name in ("samples", "max_new_tokens", "batch_size", "epochs", "minibatches"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(
                    f"objective.rollouts.{name} is {value!r}: give a whole number, 1 or more."
                )
        for name in ("max_kl", "max_unfinished"):
            if getattr(self, name) <= 0:
                raise InputError(f"objective.rollouts.{name}: give a number above 0.")

    @property
    def updates(self) -> int:
        """The steps of the optimizer for each time that responses are drawn."""
        return self.epochs * self.minibatches


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
    values = values.double()
    return Moments(float(len(values)), float(values.sum()), float(values.square().sum()))


class PolicyObjective(Protocol):
    """Turn experience into advantages once, and into a loss in every step on it.

    `has_value` says whether a value model learns beside the policy.
    """

    requires: Requires
    has_value: bool
    rollouts: Rollouts
    rewards: SymbolicRewards

    def advantages(self, parts: Sequence[Experience], /) -> list[Experience]:
        """Fill in the advantages of this rank's share of a rollout."""
        ...

    def loss(
        self,
        part: Experience,
        log_probs: Float[Tensor, " token"],
        values: Float[Tensor, " token"] | None,
        /,
    ) -> LossOutput: ...


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


def check_positive(**settings: float) -> None:
    for name, value in settings.items():
        if value < 0:
            raise InputError(f"objective.{name} is {value}: give a number, 0 or more.")
