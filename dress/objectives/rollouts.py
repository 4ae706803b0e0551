"""How often a policy answers, and how long it learns from that."""

from __future__ import annotations

from dataclasses import dataclass

from dress.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """How responses are drawn, always from the policy itself (temperature 1), and when to stop.

    They are learned from `epochs` times in `minibatches` steps of the optimizer each. A run stops
    where the mean KL per response, in nats, the share of responses without an end, or the gap
    between the log-probabilities that tokens were drawn with and those of the training forward
    pass, in nats per token, is above its limit.
    """

    samples: int = 4
    max_new_tokens: int = 96
    batch_size: int = 128
    epochs: int = 2
    minibatches: int = 2
    max_kl: float = 50.0
    max_unfinished: float = 0.9
    max_log_prob_gap: float = 0.1

    def __post_init__(self) -> None:
        for name in ("samples", "max_new_tokens", "batch_size", "epochs", "minibatches"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(
                    f"objective.rollouts.{name} is {value!r}: give a whole number, 1 or more."
                )
        for name in ("max_kl", "max_unfinished", "max_log_prob_gap"):
            if getattr(self, name) <= 0:
                raise InputError(f"objective.rollouts.{name}: give a number above 0.")

    @property
    def updates(self) -> int:
        """The steps of the optimizer for each time that responses are drawn."""
        return self.epochs * self.minibatches
