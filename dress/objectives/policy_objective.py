"""What PPO and GRPO have in common: the experience that they learn from, and their interface.

Tokens are those of responses alone, flat, one response after the other; `target_seq` of their
batch says whose they are. There is no padding among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from dress.objectives.objective import Prepared
from dress.objectives.rollouts import Rollouts
from dress.objectives.symbolic import SymbolicRewards
from dress.types import LossOutput, Movable, Requires, TokenBatch


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

    @property
    def group_ids(self) -> tuple[str, ...]:
        return self.batch.group_ids


class PolicyObjective(Prepared, Protocol):
    """Turn experience into advantages once, and into a loss in every step on it.

    `has_value` says whether a value model learns beside the policy.
    """

    requires: Requires = "prompts"
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
