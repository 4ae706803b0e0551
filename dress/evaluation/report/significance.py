"""Is the difference of two evaluations more than chance? A paired bootstrap over clusters.

Both evaluations are resampled with the same clusters, so that what is hard for both cancels out
(Efron & Tibshirani 1993, chapters 13 and 16).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from dress.evaluation.benchmark import Labels, Ratios
from dress.evaluation.statistics import pool, pooled_ratios

Combine = Callable[[Ratios], dict[str, Any]]
_CHUNK = 100  # resamples at a time


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


@dataclass(frozen=True, eq=False)
class Sums:
    """Numerators and denominators per cluster and label, and what was asked in each cluster."""

    names: Sequence[str]
    sums: Float[np.ndarray, "cluster label two"]
    asked: Mapping[str, frozenset[str]]  # in the order of the first axis

    @classmethod
    def of(
        cls, clusters: Sequence[str], labels: Sequence[Labels], questions: Sequence[str]
    ) -> Sums:
        """Pool rows; `questions` says what each is about."""
        names, sums = pool(clusters, labels)
        asked: dict[str, set[str]] = {cluster: set() for cluster in clusters}
        for cluster, question in zip(clusters, questions, strict=True):
            asked[cluster].add(question)
        return cls(names, sums, {cluster: frozenset(texts) for cluster, texts in asked.items()})

    def of_clusters(self, clusters: Sequence[str]) -> Float[np.ndarray, "cluster label two"]:
        place = {cluster: i for i, cluster in enumerate(self.asked)}
        return self.sums[[place[cluster] for cluster in clusters]]

    def ratios(self, totals: Float[np.ndarray, "... label two"]) -> Mapping[str, Any]:
        return pooled_ratios(self.names, totals)


def paired(
    first: Sums, second: Sums, combine: Combine, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Difference]:
    """Compare two evaluations on the clusters in which both were asked the same.

    Returns a difference per figure of `combine` that both have; nothing where no cluster is shared.
    """
    shared = sorted(c for c, asked in first.asked.items() if second.asked.get(c) == asked)
    if not shared:
        return {}
    pairs = [(side, side.of_clusters(shared)) for side in (first, second)]
    point = _difference(*(combine(side.ratios(sums.sum(axis=0))) for side, sums in pairs))
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in point}
    for weights in _weights(len(shared), resamples, seed):
        totals = [(side, np.tensordot(weights, sums, 1)) for side, sums in pairs]
        differences = _difference(*(combine(side.ratios(total)) for side, total in totals))
        for name, values in differences.items():
            drawn[name].append(np.broadcast_to(np.asarray(values, np.float64), len(weights)))
    return {
        name: _summary(float(value), np.concatenate(drawn[name]), len(shared))
        for name, value in point.items()
        if np.isfinite(value)
    }


def _weights(clusters: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        drawn = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=size)
        yield drawn.astype(np.float64)


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    return {name: second[name] - value for name, value in first.items() if name in second}


def _summary(value: float, drawn: np.ndarray, clusters: int) -> Difference:
    """Read interval and p off the resampled differences; p counts one more on either side of 0."""
    drawn = np.round(drawn[np.isfinite(drawn)], 12)  # rounding errors are no difference
    low, high = np.percentile(drawn, [2.5, 97.5])
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (1 + float(tail)) / (1 + len(drawn)))
    return Difference(value, float(low), float(high), p, clusters)
