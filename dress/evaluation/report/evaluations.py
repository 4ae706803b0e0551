"""An evaluation as a report reads it: its rows, their labels and what these add up to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dress.artifact import Artifact
from dress.evaluation.benchmark import Labels
from dress.evaluation.report.significance import Combine, Counts
from dress.files import read_lines

RESPONSES = "responses.jsonl"  # the runner's, whose imports take seconds
Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One evaluation; `combine` makes its metrics from labels, None where that is not known."""

    artifact: Artifact
    combine: Combine | None

    @property
    def suite(self) -> str:
        """Name the benchmark: evaluations of one suite can be compared row by row."""
        benchmark = self.artifact.config.get("benchmark", {})
        return f"{benchmark.get('_target_', '')} {benchmark.get('name', '')}".strip()

    @cached_property
    def rows(self) -> list[Row]:
        return list(read_lines(self.artifact.path / RESPONSES))

    @cached_property
    def counts(self) -> Counts | None:
        """Labels by question; None where the rows of an older evaluation have none."""
        return counts_of(self.rows, labels_of)

    @cached_property
    def reproduced(self) -> frozenset[str]:
        """Name the metrics that the labels give again: only these can be compared by them."""
        if self.counts is None or self.combine is None:
            return frozenset()
        try:
            again = self.combine(self.counts.sums().ratios())
        except KeyError:  # labels of another version of the benchmark
            return frozenset()
        metrics = self.artifact.metrics
        return frozenset(
            name
            for name, value in again.items()
            if math.isclose(value, metrics.get(name, math.nan))
        )


def labels_of(row: Row) -> Labels:
    return {name: (pair[0], pair[1]) for name, pair in row.get("labels", {}).items()}


def counts_of(rows: Sequence[Row], labels: Callable[[Row], Labels]) -> Counts | None:
    """Count `labels` of each dialogue; they are the same in all its rows."""
    firsts = [row for row in rows if not row.get("turn")]
    if not firsts or not all("cluster" in row and "labels" in row for row in firsts):
        return None
    asked = [f"{row['id']} {row['question']} {row.get('scene', '')}" for row in firsts]
    clusters = [row["cluster"] for row in firsts]
    return Counts(
        dict(zip(asked, clusters, strict=True)),
        dict(zip(asked, map(labels, firsts), strict=True)),
    )
