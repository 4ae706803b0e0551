"""Percentile bootstrap of pooled ratios, clustered (Efron & Tibshirani 1993, section 13.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from dress.evaluation.benchmark import Labels, Ratios

_CHUNK = 100  # resamples at a time: memory stays at chunk x clusters


def pool(
    clusters: Sequence[str], labels: Sequence[Labels]
) -> tuple[list[str], Float[np.ndarray, "cluster label two"]]:
    """Sum numerators and denominators per cluster and label."""
    names = sorted({name for row in labels for name in row})
    place = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    column = {name: i for i, name in enumerate(names)}
    counted = [
        (place[cluster], column[name], pair)
        for cluster, row in zip(clusters, labels, strict=True)
        for name, pair in row.items()
    ]
    sums = np.zeros((len(place), len(names), 2))
    if counted:
        at, label, pairs = zip(*counted, strict=True)
        np.add.at(sums, (np.array(at), np.array(label)), np.array(pairs, dtype=np.float64))
    return names, sums


def bootstrap(
    names: Sequence[str],
    sums: Float[np.ndarray, "cluster label two"],
    metrics: Callable[[Ratios], dict[str, Any]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Return each metric with its 95 % interval as `name`, `name_low`, `name_high`."""
    point = metrics(pooled_ratios(names, sums.sum(axis=0)))
    rng = np.random.default_rng(seed)
    clusters = len(sums)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in point}
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        weights = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=size)
        totals = np.einsum("rc,clt->rlt", weights.astype(np.float64), sums)
        for name, values in metrics(pooled_ratios(names, totals)).items():
            drawn[name].append(np.broadcast_to(np.asarray(values, np.float64), (size,)))
    result: dict[str, float] = {}
    for name, value in point.items():
        low, high = np.nanpercentile(np.concatenate(drawn[name]), [2.5, 97.5])
        result |= {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}
    return result


def pooled_ratios(
    names: Sequence[str], totals: Float[np.ndarray, "... label two"]
) -> Mapping[str, Any]:
    """Divide numerators by denominators; not finite where nothing was counted."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = totals[..., 0] / totals[..., 1]
    return {name: ratios[..., i] for i, name in enumerate(names)}
