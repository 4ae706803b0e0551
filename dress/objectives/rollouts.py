"""How often a policy answers, and how long it learns from that."""

from __future__ import annotations

from dataclasses import dataclass

from dress.settings import AboveZero, Positive, check_values


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """How responses are drawn, always from the policy itself (temperature 1), and when to stop.

    They are learned from `epochs` times in `minibatches` steps of the optimizer each. A run stops
    where the mean KL per response, in nats, the share of responses without an end, or the gap
    between the log-probabilities that tokens were drawn with and those of the training forward
    pass, in nats per token, is above its limit.
    """

    samples: Positive = 4
    max_new_tokens: Positive = 96
    batch_size: Positive = 128
    epochs: Positive = 2
    minibatches: Positive = 2
    max_kl: AboveZero = 50.0
    max_unfinished: AboveZero = 0.9
    max_log_prob_gap: AboveZero = 0.1

    def __post_init__(self) -> None:
        check_values(type(self), vars(self))

    @property
    def updates(self) -> int:
        """The steps of the optimizer for each time that responses are drawn."""
        return self.epochs * self.minibatches
