"""Singulars as pattern.en makes them, for the words that CHAIR looks for."""

from __future__ import annotations

import re
from functools import lru_cache

_IRREGULAR = (
    ("children", "child"),
    ("men", "man"),
    ("people", "person"),
    ("geese", "goose"),
    ("oxen", "ox"),
    ("kine", "cow"),
)
_KEPT = frozenset(("scissors", "cookies", "collies", "doggies", "birdies", "pixies"))
_ENDINGS = tuple(
    (re.compile(pattern), ending)
    for pattern, ending in (
        (r"(?<=shoe)s$", ""),
        (r"(?<=o)es$", ""),
        (r"(?<=bus)es$", ""),
        (r"(?<=[ml])ice$", "ouse"),
        (r"(?<=x)es$|(?<=ch)es$|(?<=ss)es$|(?<=sh)es$", ""),
        (r"(?<=[^aeiouy])ies$|(?<=qu)ies$", "y"),
        (r"(?<=[aeo]l)ves$", "f"),
        (r"(?<=[nlw]i)ves$", "fe"),
        (r"(?<=[lr])ves$", "f"),
        (r"(?<=[aeo])ves$", "ve"),
        (r"(?<=hi)ves$|(?<=ti)ves$|(?<=si)ves$", "ve"),
        (r"(?<=[^f])ves$", "fe"),
        (r"s$", ""),
    )
)


@lru_cache(maxsize=100_000)
def singular(word: str) -> str:
    """Return the singular of a lower-case word as the original does where an object may result."""
    if word in _KEPT:
        return word
    for many, one in _IRREGULAR:
        if word.endswith(many):
            return word.removesuffix(many) + one
    for pattern, ending in _ENDINGS:
        if pattern.search(word):
            return pattern.sub(ending, word)
    return word
