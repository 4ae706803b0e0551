"""Bootstrap over clusters: intervals of pooled ratios, and is a difference more than chance?

Intervals are percentiles of ratios pooled over resampled clusters. For a difference both
evaluations are resampled with the same clusters, so that what is hard for both cancels out (Efron &
Tibshirani 1993, chapters 13 and 16).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from dress.evaluation.benchmark import Labels, Ratios

Combine = Callable[[Ratios], dict[str, Any]]
_CHUNK = 100  # resamples at a time: memory stays at chunk x clusters


@dataclass(frozen=True, eq=False)
class Sums:
    """Numerators and denominators per cluster and label."""

    names: Sequence[str]
    sums: Float[np.ndarray, "cluster label two"]

    def ratios(self, weights: Float[np.ndarray, "... cluster"] | None = None) -> Ratios:
        """Pool all clusters, each as often as its weight says; not finite where nothing counted."""
        if weights is None:
            totals = self.sums.sum(axis=0)
        else:
            totals = np.einsum("...c,clt->...lt", weights, self.sums)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = totals[..., 0] / totals[..., 1]
        return {name: ratios[..., i] for i, name in enumerate(self.names)}


@dataclass(frozen=True, eq=False)
class Counts:
    """What the answer to each question counted, and the cluster it is resampled with."""

    clusters: Mapping[str, str]  # by question
    labels: Mapping[str, Labels]  # by question

    def sums(self) -> Sums:
        return pool([*self.clusters.values()], [*self.labels.values()])

    def shared(self, other: Counts) -> tuple[Sums, Sums] | None:
        """Sum both over the questions that both were asked, in clusters of the first.

        None where there is no such question.
        """
        asked = sorted(self.labels.keys() & other.labels.keys())
        clusters = [self.clusters[question] for question in asked]
        one, two = (
            pool(clusters, [side.labels[question] for question in asked]) for side in (self, other)
        )
        return (one, two) if asked else None


@dataclass(frozen=True)
class Difference:
    """Second minus first, with its 95 % interval and two-sided p, over `clusters` pairs."""

    value: float
    low: float
    high: float
    p: float
    clusters: int

    @property
    def significant(self) -> bool:
        """Tell whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def pool(clusters: Sequence[str], labels: Sequence[Labels]) -> Sums:
    """Sum numerators and denominators per cluster and label."""
    names = sorted({name for row in labels for name in row})
    row_of = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    column_of = {name: i for i, name in enumerate(names)}
    counted = [
        (row_of[cluster], column_of[name], pair)
        for cluster, row in zip(clusters, labels, strict=True)
        for name, pair in row.items()
    ]
    sums = np.zeros((len(row_of), len(names), 2))
    if counted:
        rows, columns, pairs = zip(*counted, strict=True)
        np.add.at(sums, (np.array(rows), np.array(columns)), np.array(pairs, dtype=np.float64))
    return Sums(names, sums)


def bootstrap(
    sums: Sums, metrics: Combine, *, resamples: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Return each metric with its 95 % interval as `name`, `name_low`, `name_high`."""
    point = metrics(sums.ratios())
    drawn = _resampled(
        lambda weights: metrics(sums.ratios(weights)), len(sums.sums), resamples, seed
    )
    result: dict[str, float] = {}
    for name, value in point.items():
        low, high = np.nanpercentile(drawn[name], [2.5, 97.5])
        result |= {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}
    return result


def paired(
    first: Counts, second: Counts, combine: Combine, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Difference]:
    """Compare two evaluations on the questions that both were asked.

    Returns a difference per figure of `combine` that both have; nothing where no question is
    shared.
    """
    pair = first.shared(second)
    if pair is None:
        return {}

    def differences(weights: np.ndarray | None) -> dict[str, Any]:
        one, two = (combine(side.ratios(weights)) for side in pair)
        return {name: two[name] - value for name, value in one.items() if name in two}

    clusters = len(pair[0].sums)
    drawn = _resampled(differences, clusters, resamples, seed)
    return {
        name: _difference(float(value), drawn[name], clusters)
        for name, value in differences(None).items()
        if np.isfinite(value)
    }


def _resampled(
    figures: Callable[[np.ndarray], Mapping[str, Any]], clusters: int, resamples: int, seed: int
) -> dict[str, Float[np.ndarray, " resample"]]:
    """Return each figure for every resample; `figures` is given clusters' weights, some rows."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[np.ndarray]] = defaultdict(list)
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        weights = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=size)
        for name, values in figures(weights.astype(np.float64)).items():
            drawn[name].append(np.broadcast_to(np.asarray(values, np.float64), (size,)))
    return {name: np.concatenate(chunks) for name, chunks in drawn.items()}


def _difference(value: float, drawn: np.ndarray, clusters: int) -> Difference:
    """Read interval and p off the resampled differences; p counts one more on either side of 0."""
    drawn = np.round(drawn[np.isfinite(drawn)], 12)  # rounding errors are no difference
    low, high = np.percentile(drawn, [2.5, 97.5])
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (1 + float(tail)) / (1 + len(drawn)))
    return Difference(value, float(low), float(high), p, clusters)
