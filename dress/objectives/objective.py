"""The interface of an objective: a loss that adds up over any split of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from jaxtyping import Float
from torch import Tensor, nn

from dress.types import LossOutput, Requires, TokenBatch

LogProbs = Callable[[TokenBatch], Float[Tensor, " target"]]


class Prepared(Protocol):
    """What every objective says of itself; `requires` names the kind of record it needs."""

    requires: Requires

    def prepare(self, model: nn.Module, /, *, cached: Callable[[], LogProbs] | None = None) -> None:
        """Look at the weights that training begins with; called again before it is resumed.

        `cached` returns the log-probabilities of all data under these weights, which are computed
        once and kept on disk.
        """


class Objective(Prepared, Protocol):
    """Compute the loss of a model on a batch."""

    def __call__(self, model: nn.Module, batch: TokenBatch, /) -> LossOutput: ...
