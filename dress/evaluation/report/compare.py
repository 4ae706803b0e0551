"""Figures of every column with intervals, and how they differ from the first that has them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dress.evaluation.report.columns import Column
from dress.evaluation.report.significance import Difference, paired
from dress.evaluation.table import headline_gains

INTERACTION = "/interaction/"
GAIN_INPUTS = frozenset(
    f"world/{name}" for name in ("helpfulness", "chair_i", "chair_s", "safety", "persuasiveness")
)
LOWER_IS_BETTER = re.compile(
    r"chair(_[is])?|hal|cog|overrefusal|overcorrection|broken_\d+|hallucination_rate|misread|unparsed|empty|"
    r"unanswered|judge_failures"
)
NEUTRAL = re.compile(
    r"mentions|nouns|yes_ratio|reference_score|responses|ignored"
)  # neither more nor fewer is better


@dataclass(frozen=True)
class Figure:
    """A value, its interval where known, and its change from the first column that has it."""

    value: float
    low: float | None
    high: float | None
    change: float | None = None
    difference: Difference | None = None  # of paired rows; None where these have no labels


Figures = dict[str, Figure]


@dataclass(frozen=True)
class Gains:
    """Relative gains in percent, and over how many scenes; None where all were taken unpaired."""

    percent: Mapping[str, float]
    scenes: int | None


def sign(name: str) -> int:
    """Return 1 where more is better, -1 where less is, else 0."""
    quantity = name.rsplit("/", 1)[-1]
    if NEUTRAL.fullmatch(quantity):
        return 0
    return -1 if LOWER_IS_BETTER.fullmatch(quantity) else 1


def figures_of(metrics: Mapping[str, float]) -> Figures:
    """Read flat metrics, `name`, `name_low` and `name_high`, as figures."""
    bounds = {f"{name}{end}" for name in metrics for end in ("_low", "_high")}
    return {
        name: Figure(value, metrics.get(f"{name}_low"), metrics.get(f"{name}_high"))
        for name, value in metrics.items()
        if name not in bounds
    }


def compared(first: Figures, figures: Figures, differences: Mapping[str, Difference]) -> Figures:
    """Return `figures` with their change from `first`."""
    return {
        name: Figure(
            figure.value,
            figure.low,
            figure.high,
            change=figure.value - first[name].value if name in first else None,
            difference=differences.get(name),
        )
        for name, figure in figures.items()
    }


def metric_figures(columns: Sequence[Column]) -> list[Figures]:
    """Return the metrics of each column; a missing one has none."""
    found: list[Figures] = []
    first: Figures = {}
    for place, column in enumerate(columns):
        figures = figures_of(column.metrics)
        found.append(compared(first, figures, _metric_differences(columns[:place], column)))
        first = {**figures, **first}
    return found


def _metric_differences(earlier: Sequence[Column], column: Column) -> dict[str, Difference]:
    """Compare each benchmark with the first column that has it."""
    found: dict[str, Difference] = {}
    for suite, other in column.suites.items():
        one = next((c.suites[suite] for c in earlier if suite in c.suites), None)
        if one is None:
            continue
        names = one.reproduced & other.reproduced
        if names and one.counts and other.counts and one.combine:
            differences = paired(one.counts, other.counts, one.combine)
            found |= {name: differences[name] for name in names & differences.keys()}
    return found


def world_gains(first: Column, second: Column) -> Gains | None:
    """Return the headline's gains over the scenes that both columns were asked about.

    Rows without labels are not paired: the gains are then those of all scenes. None where a column
    has not been asked what the gains need.
    """
    for suite, other in second.suites.items():
        one = first.suites.get(suite)
        if one is None or not GAIN_INPUTS <= one.artifact.metrics.keys():
            continue
        if not (GAIN_INPUTS <= one.reproduced & other.reproduced):
            return Gains(headline_gains(one.artifact.metrics, other.artifact.metrics), None)
        assert one.counts and other.counts and one.combine
        pair = one.counts.shared(other.counts)
        if pair is None:
            return Gains({}, 0)
        before, after = (one.combine(side.ratios()) for side in pair)
        return Gains(headline_gains(before, after), len(pair[0].sums))
    return None
