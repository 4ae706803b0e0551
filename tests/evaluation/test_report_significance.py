"""Paired differences by hand, by enumeration and by an independent resampling."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from dress.evaluation.benchmark import Labels, Ratios
from dress.evaluation.report.significance import Difference, Sums, paired


def identity(ratios: Ratios) -> dict[str, Any]:
    return dict(ratios)


def sums(values: Sequence[float], *, names: Sequence[str] | None = None) -> Sums:
    clusters = names or [f"c{i:03d}" for i in range(len(values))]
    labels: list[Labels] = [{"hit": (value, 1)} for value in values]
    return Sums.of(clusters, labels, clusters)


def difference(
    first: Sequence[float], second: Sequence[float], *, resamples: int = 2000
) -> Difference:
    return paired(sums(first), sums(second), identity, resamples=resamples)["hit"]


def test_a_difference_that_every_cluster_shows_is_certain() -> None:
    found = difference([0, 0, 0, 0], [1, 1, 1, 1], resamples=999)
    assert (found.value, found.low, found.high, found.clusters) == (1.0, 1.0, 1.0, 4)
    assert found.p == pytest.approx(2 / 1000) and found.significant


def test_no_difference_is_no_evidence() -> None:
    found = difference([0, 1, 1], [0, 1, 1])
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
    assert not found.significant


def test_two_clusters_by_hand() -> None:
    # differences 1 and 0: a resample takes the second twice, and is 0, one time in four
    found = difference([0, 0], [1, 0], resamples=20000)
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)
    assert found.p == pytest.approx(2 * 1 / 4, abs=0.02)


def test_four_clusters_by_enumeration() -> None:
    changes = (1, 1, 1, -1)
    means = [sum(drawn) / 4 for drawn in product(changes, repeat=4)]
    below = sum(mean <= 0 for mean in means) / len(means)  # 67 of 256
    found = difference([0, 0, 0, 1], [1, 1, 1, 0], resamples=20000)
    assert found.p == pytest.approx(2 * below, abs=0.02)
    assert found.value == 0.5


def test_against_an_independent_resampling_of_rows() -> None:
    rng = np.random.default_rng(5)
    first = rng.random(150) < 0.5
    second = first ^ (rng.random(150) < 0.2)
    drawn = rng.integers(0, 150, size=(20000, 150))
    changes = second[drawn].mean(axis=1) - first[drawn].mean(axis=1)
    found = difference(first.astype(float).tolist(), second.astype(float).tolist())
    low, high = np.percentile(changes, [2.5, 97.5])
    assert found.value == pytest.approx(second.mean() - first.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.012)
    p = 2 * min((changes <= 1e-12).mean(), (changes >= -1e-12).mean())
    assert found.p == pytest.approx(p, abs=0.05)


def test_pairing_takes_out_what_is_hard_for_both() -> None:
    first = [float(i % 2) for i in range(100)]
    second = [1.0 if i < 10 else value for i, value in enumerate(first)]  # five more are right
    found = difference(first, second)
    assert found.significant and found.p < 0.05
    # unpaired, the two means of 0.50 and 0.55 have a standard error of 0.07
    assert found.high - found.low < 0.1


def test_only_clusters_of_both_with_the_same_questions_count() -> None:
    first = sums([0, 0, 1], names=["a", "b", "c"])
    second = sums([1, 1, 1], names=["b", "c", "d"])
    found = paired(first, second, identity)["hit"]
    assert (found.value, found.clusters) == (0.5, 2)  # b: 0 to 1, c: 1 to 1
    other = Sums.of(["a", "b"], [{"hit": (1, 1)}, {"hit": (1, 1)}], ["a", "another question"])
    assert paired(first, other, identity)["hit"].clusters == 1
    assert paired(first, sums([1], names=["z"]), identity) == {}


def test_a_metric_of_ratios_is_compared_as_a_whole() -> None:
    labels: list[Labels] = [{"x": (1, 2), "y": (1, 1)}, {"x": (1, 4)}]
    better: list[Labels] = [{"x": (2, 2), "y": (1, 1)}, {"x": (4, 4)}]

    def mean(ratios: Ratios) -> dict[str, Any]:
        return {"toy/mean": (ratios["x"] + ratios["y"]) / 2, "toy/x": ratios["x"]}

    first, second = (Sums.of(["a", "b"], rows, ["", ""]) for rows in (labels, better))
    found = paired(first, second, mean)
    assert found["toy/x"].value == pytest.approx(1 - 2 / 6)
    assert found["toy/mean"].value == pytest.approx((1 - 2 / 6) / 2)
    # "y" is absent from resamples of b alone, which therefore do not count
    assert (found["toy/mean"].low, found["toy/x"].low) == pytest.approx((0.25, 0.5))
