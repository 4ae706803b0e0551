"""Paired differences by hand, by enumeration and by an independent resampling."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from dress.evaluation.benchmark import Labels, Ratios
from dress.evaluation.statistics import Counts, Difference, paired


def identity(ratios: Ratios) -> dict[str, Any]:
    return dict(ratios)


def counted(
    values: Sequence[float], *, asked: Sequence[str] | None = None, clusters: str | None = None
) -> Counts:
    """One question per value, each a cluster of its own unless `clusters` has their letters."""
    questions = asked or [f"q{i:03d}" for i in range(len(values))]
    return Counts(
        dict(zip(questions, clusters or questions, strict=True)),
        {question: {"hit": (v, 1)} for question, v in zip(questions, values, strict=True)},
    )


def difference(
    first: Sequence[float], second: Sequence[float], *, resamples: int = 2000
) -> Difference:
    return paired(counted(first), counted(second), identity, resamples=resamples)["hit"]


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


def test_only_what_both_were_asked_counts() -> None:
    first = counted([0, 0, 1], asked=["a", "b", "c"])
    second = counted([1, 1, 1], asked=["b", "c", "d"])
    found = paired(first, second, identity)["hit"]
    assert (found.value, found.clusters) == (0.5, 2)  # b: 0 to 1, c: 1 to 1
    assert paired(first, counted([1], asked=["z"]), identity) == {}


def test_what_only_one_was_asked_leaves_its_cluster_to_the_rest() -> None:
    """As where a scene is drawn again after the last one of the smaller evaluation."""
    first = counted([0, 1], asked=["a1", "b1"], clusters="ab")
    second = counted([1, 1, 0, 0], asked=["a1", "b1", "a2", "c1"], clusters="abac")
    for one, other, change in ((first, second, 0.5), (second, first, -0.5)):
        found = paired(one, other, identity)["hit"]
        assert (found.value, found.clusters) == (change, 2)


def test_questions_of_one_cluster_are_resampled_together() -> None:
    together = counted([0, 0, 1, 1], clusters="aabb")
    found = paired(together, counted([1, 1, 1, 1]), identity, resamples=20000)["hit"]
    # two clusters with the differences 1 and 0, as by hand above
    assert (found.value, found.low, found.high, found.clusters) == (0.5, 0.0, 1.0, 2)
    assert found.p == pytest.approx(2 * 1 / 4, abs=0.02)


def test_a_metric_of_ratios_is_compared_as_a_whole() -> None:
    labels: list[Labels] = [{"x": (1, 2), "y": (1, 1)}, {"x": (1, 4)}]
    better: list[Labels] = [{"x": (2, 2), "y": (1, 1)}, {"x": (4, 4)}]

    def mean(ratios: Ratios) -> dict[str, Any]:
        return {"toy/mean": (ratios["x"] + ratios["y"]) / 2, "toy/x": ratios["x"]}

    names = {"a": "a", "b": "b"}
    first, second = (
        Counts(names, dict(zip(names, rows, strict=True))) for rows in (labels, better)
    )
    found = paired(first, second, mean)
    assert found["toy/x"].value == pytest.approx(1 - 2 / 6)
    assert found["toy/mean"].value == pytest.approx((1 - 2 / 6) / 2)
    # "y" is absent from resamples of b alone, which therefore do not count
    assert (found["toy/mean"].low, found["toy/x"].low) == pytest.approx((0.25, 0.5))
