"""How a model's responses are drawn. Plain data: nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from dress.settings import Amount, Positive, Share, Whole, check_values

GENERATED = "rollout/generated_tokens"  # by a model of ours
SERVED = "sampler/"  # begins what a model behind a server has cost
SPENT = (GENERATED, SERVED)  # begin the figures of a Sampler, which add up over parts


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of generation; temperature 0 takes the likeliest token each time.

    `batch_size` counts prompts. `guidance` moves greedy decoding away from a contrasting condition
    (dress/modeling/decoding.py).
    """

    temperature: Amount = 1.0
    top_p: Share = 1.0
    max_new_tokens: Positive = 128
    batch_size: Positive = 128
    guidance: Amount = 0.0

    def __post_init__(self) -> None:
        check_values(type(self), vars(self))


@dataclass(frozen=True, kw_only=True)
class Responding:
    """How many responses are got, and from where (conf/feedback); Sampling says how."""

    responses: Literal["sampled", "captions"]
    prompts: Positive | None
    chunk: Positive
    parts: Positive
    part: Whole | None
    targets: Sequence[str | int]
    samples: Positive
    turns: Positive
    first_candidates: Positive
    candidates: Positive
    revisions: Literal["heard", "fresh"]
    relapse_share: Share
    false_share: Share
    false_feedback: Sequence[Literal["other", "aside", "wrong", "empty"]]
    jsonl: bool

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> Responding:
        return cls(**{field.name: node[field.name] for field in fields(cls)})
