"""Point values are exact; intervals cover the truth and respect clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from dress.evaluation.benchmark import Labels, Ratios
from dress.evaluation.statistics import bootstrap, pool


def identity(ratios: Ratios) -> dict[str, Any]:
    return {f"toy/{name}": value for name, value in ratios.items()}


def intervals(
    clusters: Sequence[str], values: Sequence[float], *, resamples: int = 1000, seed: int = 0
) -> dict[str, float]:
    labels: list[Labels] = [{"hit": (value, 1)} for value in values]
    return bootstrap(pool(clusters, labels), identity, resamples=resamples, seed=seed)


def width(figures: dict[str, float], name: str = "toy/hit") -> float:
    return figures[f"{name}_high"] - figures[f"{name}_low"]


def test_pooling_sums_pairs_per_cluster_and_label() -> None:
    pooled = pool(["b", "a", "b"], [{"x": (1, 2)}, {"y": (0, 1), "x": (3, 4)}, {"x": (1, 1)}])
    assert pooled.names == ["x", "y"]
    assert pooled.sums.tolist() == [[[2, 3], [0, 0]], [[3, 4], [0, 1]]]


def test_a_point_value_is_the_ratio_of_sums_not_the_mean_of_ratios() -> None:
    labels: list[Labels] = [{"x": (1, 1), "y": (2, 1)}, {"x": (1, 3), "y": (0, 1)}]

    def metrics(ratios: Ratios) -> dict[str, Any]:
        return {"toy/x": ratios["x"], "toy/sum": ratios["x"] + ratios["y"]}

    figures = bootstrap(pool(["a", "b"], labels), metrics)
    assert figures["toy/x"] == 0.5  # (1 + 1) / (1 + 3), not (1 + 1/3) / 2
    assert figures["toy/sum"] == 1.5
    assert figures["toy/x_low"] == pytest.approx(1 / 3) and figures["toy/x_high"] == 1.0


def test_equal_clusters_leave_no_doubt() -> None:
    figures = intervals(["a", "b", "c"], [0.25, 0.25, 0.25])
    assert list(figures.values()) == [0.25, 0.25, 0.25]


def test_the_interval_has_the_width_of_the_normal_one() -> None:
    # 400 coins of which half are heads: 1.96 * sqrt(0.25 / 400) = 0.049 either way
    figures = intervals([str(i) for i in range(400)], [i % 2 for i in range(400)])
    assert figures["toy/hit_low"] == pytest.approx(0.5 - 0.049, abs=0.006)
    assert figures["toy/hit_high"] == pytest.approx(0.5 + 0.049, abs=0.006)


def test_the_interval_covers_the_truth_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        values = rng.random(80) < 0.3
        figures = intervals([str(i) for i in range(80)], values.tolist(), resamples=300)
        covered += figures["toy/hit_low"] <= 0.3 <= figures["toy/hit_high"]
    assert 0.90 <= covered / 200 <= 0.99


def test_repeating_rows_within_clusters_adds_no_certainty() -> None:
    names = [str(i) for i in range(50)]
    values = [float(i % 5 == 0) for i in range(50)]
    once = intervals(names, values)
    repeated = intervals(names * 4, values * 4)
    assert repeated == pytest.approx(once)
    fresh = intervals([str(i) for i in range(200)], values * 4)
    assert width(fresh) < 0.6 * width(once)  # four times the clusters: half as wide


def test_a_label_that_some_resamples_lack_is_left_out_of_them() -> None:
    names = [str(i) for i in range(6)]
    labels: list[Labels] = [{"common": (1, 1)} for _ in names[1:]]
    labels.append({"common": (0, 1), "rare": (1, 1)})
    figures = bootstrap(pool(names, labels), identity)
    assert figures["toy/rare"] == figures["toy/rare_low"] == figures["toy/rare_high"] == 1.0


def test_the_seed_decides() -> None:
    names, values = [str(i) for i in range(40)], [i * 7 % 11 / 10 for i in range(40)]
    assert intervals(names, values, seed=1) == intervals(names, values, seed=1)
    assert intervals(names, values, seed=1) != intervals(names, values, seed=2)
    # resamples are drawn in chunks; their number need not divide evenly
    assert intervals(names, values, resamples=130)["toy/hit"] == pytest.approx(sum(values) / 40)
