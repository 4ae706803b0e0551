"""How a model's responses are drawn. Plain data: nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass

from dress.settings import Amount, Positive, Share, check_values

GENERATED = "rollout/generated_tokens"  # by a model of ours
SERVED = "sampler/"  # begins what a model behind a server has cost
SPENT = (GENERATED, SERVED)  # begin the figures of a Sampler, which add up over parts


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of generation; temperature 0 takes the likeliest token each time.

    `batch_size` counts prompts. `guidance` moves greedy decoding away from a contrasting condition
    (dress/modeling/guidance.py).
    """

    temperature: Amount = 1.0
    top_p: Share = 1.0
    max_new_tokens: Positive = 128
    batch_size: Positive = 128
    guidance: Amount = 0.0

    def __post_init__(self) -> None:
        check_values(type(self), vars(self))
