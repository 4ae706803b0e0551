"""Figures of every column with intervals, and how they differ from the first that has them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dress.evaluation.benchmark import Labels
from dress.evaluation.statistics import Counts, Difference, bootstrap, paired
from dress.reporting.columns import Column, Evaluation, Row, counts_of, labels_of

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
    low: float | None = None
    high: float | None = None
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


def headline_gains(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Gains by the rules that decode DRESS's headline numbers (facts of its result tables).

    helpful: relative gain; honest: mean relative reduction of CHAIR_i and CHAIR_s; harmless: mean
    relative gain of safety and persuasiveness. In percent;
    NaN where the figure before is 0.
    """

    def gain(name: str) -> float:
        start = before[f"world/{name}"]
        return 100 * (after[f"world/{name}"] / start - 1) if start else math.nan

    return {
        "helpful": gain("helpfulness"),
        "honest": -(gain("chair_i") + gain("chair_s")) / 2,
        "harmless": (gain("safety") + gain("persuasiveness")) / 2,
    }


def gain_line(gains: Mapping[str, float]) -> str:
    """Write `headline_gains` on one line."""
    shown = (
        f"{name} undefined, from 0" if math.isnan(value) else f"{name} {value:+.1f} %"
        for name, value in gains.items()
    )
    return f"gain: {', '.join(shown)}"


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


def type_figures(columns: Sequence[Column]) -> list[Figures]:
    """Return figures per question type: each label pooled over one task."""
    suites = [_plain_suite(column) for column in columns]
    counts = [_type_counts(evaluation) for evaluation in suites]
    every = [
        figures_of(bootstrap(part.sums(), dict)) if part else _type_metrics(evaluation)
        for evaluation, part in zip(suites, counts, strict=True)
    ]
    base = next((place for place, figures in enumerate(every) if figures), 0)
    first = counts[base]
    return [
        compared(every[base], figures, paired(first, part, dict) if first and part else {})
        if place != base
        else figures
        for place, (figures, part) in enumerate(zip(every, counts, strict=True))
    ]


def _type_metrics(evaluation: Evaluation | None) -> Figures:
    """Return the metrics that are named after tasks, for rows without labels."""
    if evaluation is None:
        return {}
    tasks = {row.get("task") for row in evaluation.rows}
    figures = figures_of(evaluation.artifact.metrics)
    named = {name.rsplit("/", 1)[-1]: figure for name, figure in figures.items()}
    return {task: figure for task, figure in named.items() if task in tasks}


def _plain_suite(column: Column) -> Evaluation | None:
    """Return the evaluation whose questions have types and which is not about turns of feedback."""
    for evaluation in column.suites.values():
        told = any(INTERACTION in name for name in evaluation.artifact.metrics)
        if not told and any("task" in row for row in evaluation.rows):
            return evaluation
    return None


def _type_counts(evaluation: Evaluation | None) -> Counts | None:
    if evaluation is None or evaluation.counts is None:
        return None
    return counts_of([row for row in evaluation.rows if "task" in row], _by_type)


def _by_type(row: Row) -> Labels:
    """Name labels task/label; a task with a label of its own name is judged by that alone."""
    task, labels = row["task"], labels_of(row)
    if task in labels:
        return {task: labels[task]}
    return {f"{task}/{name}": pair for name, pair in labels.items()}
