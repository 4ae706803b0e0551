"""Rewards that no model gives: a right answer, brevity, an answer that comes to its end.

LLaVA-RLHF adds them to the reward model's score (arXiv 2309.14525; the rules are in its code).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CHOICES = ("A", "B", "C", "D")
_FIRST_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class SymbolicRewards:
    """Weights: of `correctness`, of the share of `max_new_tokens` used, of having no end."""

    correct: float = 2.0
    length: float = -10.0
    no_end: float = -8.0


def correctness(response: str, answer: str | None) -> float:
    """Compare a response with the `answer` that is expected: A, B, C, D, no, yes or None.

    1 for the letter of a choice, at the beginning or as "correct option is X."; for an expected no
    half a point for a no and half a point off for a yes; nothing for an expected yes, which a model
    says too often anyway.
    """
    text = response.strip()
    if answer in CHOICES:
        return float(text.startswith(f"{answer}.") or f"correct option is {answer}." in text)
    if answer == "no":
        found = _FIRST_WORD.match(text)
        return {"no": 0.5, "yes": -0.5}.get(found.group().lower() if found else "", 0.0)
    return 0.0
