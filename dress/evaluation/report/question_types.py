"""Figures per question type: what the labels of one task add up to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dress.evaluation.benchmark import Labels, Ratios
from dress.evaluation.report.columns import Column
from dress.evaluation.report.compare import (
    INTERACTION,
    Figures,
    compared,
    figures_of,
)
from dress.evaluation.report.evaluations import Evaluation, Row, counts_of, labels_of
from dress.evaluation.report.significance import Counts, paired
from dress.evaluation.statistics import bootstrap


def type_figures(columns: Sequence[Column]) -> list[Figures]:
    """Return figures per question type: each label pooled over one task."""
    suites = [_plain_suite(column) for column in columns]
    counts = [_type_counts(evaluation) for evaluation in suites]
    every = [
        _bootstrapped(part) if part else _type_metrics(evaluation)
        for evaluation, part in zip(suites, counts, strict=True)
    ]
    base = next((place for place, figures in enumerate(every) if figures), 0)
    first = counts[base]
    return [
        compared(every[base], figures, paired(first, part, _identity) if first and part else {})
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


def _identity(ratios: Ratios) -> dict[str, Any]:
    return dict(ratios)


def _bootstrapped(counts: Counts) -> Figures:
    sums = counts.sums()
    return figures_of(bootstrap(sums.names, sums.sums, _identity))
