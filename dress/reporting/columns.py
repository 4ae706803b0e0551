"""The columns of a report: one per model and condition, with everything measured of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dress.artifact import Artifact
from dress.evaluation.benchmark import Labels
from dress.evaluation.scoring import RESPONSES
from dress.evaluation.statistics import Combine, Counts
from dress.files import read_lines
from dress.reporting.selection import Node, parent_fingerprint
from dress.targets import class_of

Row = Mapping[str, Any]
CombineOf = Callable[[Artifact], Combine | None]
LAST = ("scenes", "id")  # what tells the least


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One evaluation; `combine` makes its metrics from labels, None where that is not known."""

    artifact: Artifact
    combine: Combine | None

    @property
    def suite(self) -> str:
        """Name the benchmark: evaluations of one suite can be compared row by row."""
        benchmark = self.artifact.config.get("benchmark", {})
        parts = (class_of(benchmark), benchmark.get("name"), benchmark.get("first"))
        return " ".join(str(part) for part in parts if part)

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


@dataclass(frozen=True, eq=False)
class Column:
    """What was measured of one model under one condition; nothing if the arm is missing."""

    label: str
    suites: Mapping[str, Evaluation]

    @property
    def missing(self) -> bool:
        return not self.suites

    @cached_property
    def metrics(self) -> dict[str, float]:
        evaluations = self.suites.values()
        return {name: value for e in evaluations for name, value in e.artifact.metrics.items()}


def columns_of(
    artifacts: Sequence[Artifact],
    nodes: Mapping[str, Node],
    *,
    expected: Sequence[str],
    combine_of: CombineOf,
) -> list[Column]:
    """Give every model and condition a column; `expected` ones come first, present or not."""
    groups: list[dict[str, Evaluation]] = []
    for artifact in artifacts:
        evaluation = Evaluation(artifact, combine_of(artifact))
        for group in groups:
            first = next(iter(group.values())).artifact
            if evaluation.suite not in group and _same_subject(first, artifact):
                group[evaluation.suite] = evaluation
                break
        else:
            groups.append({evaluation.suite: evaluation})
    facts = [facts_of([e.artifact for e in group.values()], nodes) for group in groups]
    found = {label: group for label, group in zip(labels_from(facts), groups, strict=True)}
    order = [*expected, *(label for label in found if label not in expected)]
    return [Column(label, found.get(label, {})) for label in dict.fromkeys(order)]


def _same_subject(first: Artifact, second: Artifact) -> bool:
    """Tell whether two benchmarks were run on the same model in the same way.

    Files of responses have no model; each is a subject of its own.
    """
    one, other = settings_of(first), settings_of(second)
    shared = one.keys() & other.keys() - {"scenes", "first"}
    if not (of_world(first) and of_world(second)):
        shared &= {"temperature"}  # files of a benchmark are no ways to run a model
    return (
        parent_fingerprint(first) == parent_fingerprint(second) != ""
        and first.config.get("target") == second.config.get("target")
        and all(one[key] == other[key] for key in shared)
    )


def settings_of(evaluation: Artifact) -> dict[str, Any]:
    benchmark = evaluation.config.get("benchmark", {})
    temperature = evaluation.config.get("generation", {}).get("temperature")
    settings = {key: value for key, value in benchmark.items() if not key.startswith("_")}
    return settings | {"temperature": temperature}


def of_world(evaluation: Artifact) -> bool:
    """Tell the synthetic world's benchmarks, which share their settings."""
    benchmark = class_of(evaluation.config.get("benchmark", {}))
    return benchmark.endswith((".WorldBenchmark", ".interaction.interaction"))


def facts_of(evaluations: Sequence[Artifact], nodes: Mapping[str, Node]) -> dict[str, Any]:
    """Return what tells a column apart, the most telling first."""
    first = evaluations[0]
    name = first.lineage["parents"].get("model", {}).get("name", first.name)
    model = nodes[name].artifact if name in nodes else None
    config = model.config if model else {}
    settings = {key: value for e in evaluations for key, value in settings_of(e).items()}
    return {
        "label": f"{name.rsplit('-', 1)[0]} {first.config.get('target', '')}".strip(),
        "model seed": config.get("seed"),
        "condition": config.get("condition", {}).get("form"),
        **{key: value for key, value in settings.items() if key != "scenes"},
        "scenes": settings.get("scenes"),
        "id": first.fingerprint[:6],
    }


def labels_from(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name columns by experiment and target, and by what else differs where these are equal."""
    labels = [fact["label"] for fact in facts]
    keys = dict.fromkeys(key for fact in facts for key in fact if key not in ("label", *LAST))
    for key in (*keys, *LAST):
        for label in {label for label in labels if labels.count(label) > 1}:
            places = [i for i, other in enumerate(labels) if other == label]
            values = {
                i: "not given" if facts[i].get(key) is None else facts[i][key] for i in places
            }
            if len(set(map(str, values.values()))) > 1:
                for i in places:
                    labels[i] = f"{label}, {key} {values[i]}"
    return labels
