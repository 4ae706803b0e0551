"""Mean 0 and variance 1 over the tokens of a whole rollout, however it is cut up."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

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
    values = values.double()
    return Moments(float(len(values)), float(values.sum()), float(values.square().sum()))


def whiten(values: Float[Tensor, " token"] | None, over_all: Moments) -> Float[Tensor, " token"]:
    """Shift and scale to mean 0 and variance 1 over the whole rollout."""
    assert values is not None
    return (values - over_all.mean) / (over_all.variance + EPSILON) ** 0.5
