"""Counts of yes-or-no answers as labels: accuracy, precision, recall, F1, the share of yes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from dress.evaluation.benchmark import Label, Ratios

QUANTITIES = ("accuracy", "precision", "recall", "f1", "yes_ratio")
_FIRST = re.compile(r"[\W_]*(yes|no)(?![^\W_])", re.IGNORECASE)


def first_word(response: str) -> str | None:
    """Return yes or no where it is the first word, in any case and between any marks."""
    found = _FIRST.match(response)
    return found[1].lower() if found else None


def yes_no_labels(said: str | None, truth: str, *, positive: str) -> dict[str, Label]:
    """Count one answer; `said` is None where it is neither yes nor no, which is never right.

    F1 = 2 TP / (answered positive + truly positive), so that it too is a ratio of sums.
    """
    claimed, is_positive = said == positive, truth == positive
    hit = claimed and is_positive
    return {
        "accuracy": (float(said == truth), 1),
        "precision": (float(hit), float(claimed)),
        "recall": (float(hit), float(is_positive)),
        "f1": (2.0 * hit, float(claimed) + float(is_positive)),
        "yes_ratio": (float(said == "yes"), 1),
    }


def under(prefix: str, labels: Mapping[str, Label]) -> dict[str, Label]:
    return {f"{prefix}/{name}": label for name, label in labels.items()}


def defined(ratios: Ratios) -> dict[str, Any]:
    """Replace what is not defined by 0: precision where nothing was claimed, recall, F1."""
    return {name: np.nan_to_num(value) for name, value in ratios.items()}
