"""The columns of a report: one per model and condition, with everything measured of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dress.artifact import Artifact
from dress.evaluation.report.collect import parent_fingerprint
from dress.evaluation.report.evaluations import Evaluation
from dress.evaluation.report.labels import facts_of, labels_from, of_world, settings_of
from dress.evaluation.report.lineage import Node
from dress.evaluation.report.significance import Combine

CombineOf = Callable[[Artifact], Combine | None]


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
    shared = one.keys() & other.keys() - {"scenes"}
    if not (of_world(first) and of_world(second)):
        shared &= {"temperature"}  # files of a benchmark are no ways to run a model
    return (
        parent_fingerprint(first) == parent_fingerprint(second) != ""
        and first.config.get("target") == second.config.get("target")
        and all(one[key] == other[key] for key in shared)
    )
