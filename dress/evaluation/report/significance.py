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
class Counts:
    """What the answer to each question counted, and the cluster it is resampled with."""

    clusters: Mapping[str, str]  # by question
    labels: Mapping[str, Labels]  # by question

    def sums(self) -> Sums:
        return Sums(*pool([*self.clusters.values()], [*self.labels.values()]))

    def shared(self, other: Counts) -> tuple[Sums, Sums] | None:
        """Sum both over the questions that both were asked, in clusters of the first.

        None where there is no such question.
        """
        asked = sorted(self.labels.keys() & other.labels.keys())
        clusters = [self.clusters[question] for question in asked]
        one, two = (
            Sums(*pool(clusters, [side.labels[question] for question in asked]))
            for side in (self, other)
        )
        return (one, two) if asked else None


@dataclass(frozen=True, eq=False)
class Sums:
    """Numerators and denominators per cluster and label."""

    names: Sequence[str]
    sums: Float[np.ndarray, "cluster label two"]

    def ratios(self, weights: Float[np.ndarray, "... cluster"] | None = None) -> Ratios:
        """Pool all clusters, each as often as its weight says."""
        every = np.ones(len(self.sums)) if weights is None else weights
        return pooled_ratios(self.names, np.tensordot(every, self.sums, 1))


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
    clusters = len(pair[0].sums)
    point = _difference(*(combine(side.ratios()) for side in pair))
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in point}
    for weights in _weights(clusters, resamples, seed):
        differences = _difference(*(combine(side.ratios(weights)) for side in pair))
        for name, values in differences.items():
            drawn[name].append(np.broadcast_to(np.asarray(values, np.float64), len(weights)))
    return {
        name: _summary(float(value), np.concatenate(drawn[name]), clusters)
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
