"""The interface of an objective: a loss that adds up over any split of a batch."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import nn

from dress.types import LossOutput, TokenBatch

Requires = Literal["dialogues", "feedback", "preferences", "prompts"]


class Objective(Protocol):
    """Compute the loss of a model on a batch; `requires` names the kind of record it needs."""

    requires: Requires

    def start(self, model: nn.Module, /) -> None:
        """Look at the weights that training begins with; called again before it is resumed."""

    def __call__(self, model: nn.Module, batch: TokenBatch, /) -> LossOutput: ...
