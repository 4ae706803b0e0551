"""The relative gains of a report, by hand: over the scenes of both columns, and how many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dress.artifact import Artifact, Building
from dress.evaluation.benchmark import Labels
from dress.evaluation.benchmarks.world import WorldBenchmark
from dress.evaluation.statistics import bootstrap, pool
from dress.files import append_line
from dress.jobs.report import combine_of
from dress.reporting.columns import columns_of
from dress.reporting.selection import ancestry, select
from dress.reporting.tables import Table, gain_table
from tests.reporting.report_store import Store

WORLD = "dress.evaluation.benchmarks.world.WorldBenchmark"


def labels_of(recall: float, invented: float) -> Labels:
    """A scene of ten objects, described with ten mentions; all else is half right."""
    half = ("vqa_accuracy", "relevance", "safety", "persuasiveness", "overrefusal")
    described = {"recall": (recall, 10.0), "chair_i": (invented, 10.0), "chair_s": (1.0, 2.0)}
    return {**described, **{name: (1.0, 2.0) for name in half}}


def evaluation(
    store: Store, name: str, scenes: Sequence[Labels], *, clusters: str = "", kept: bool = True
) -> Artifact:
    """Scene i, of the cluster that letter i of `clusters` names, is asked one question."""
    names = clusters or [f"scene-{number}" for number in range(len(scenes))]
    config = {
        "target": "best",
        "benchmark": {"_target_": WORLD, "scenes": len(scenes), "seed": 0, "images": "true"},
    }

    def fill(building: Building) -> None:
        figures = bootstrap(pool(names, scenes), WorldBenchmark(scenes=1).metrics, resamples=1)
        building.write_metrics(figures)
        for number, (cluster, labels) in enumerate(zip(names, scenes, strict=True)):
            row = {"id": f"{number}", "question": "?", "cluster": cluster, "scene": [number]}
            labels_kept = {"labels": {n: list(pair) for n, pair in labels.items()}} if kept else {}
            append_line(building.path / "responses.jsonl", row | labels_kept)

    return store.make(f"world_{name}", "evaluation", fill, config, model=store.model(name))


def gains(root: Path, *arms: Artifact) -> Table:
    selection = select([str(arm.path) for arm in arms], root)
    nodes = ancestry(selection.artifacts)
    table = gain_table(columns_of(selection.evaluations, nodes, expected=(), combine_of=combine_of))
    assert table is not None
    return table


def column(table: Table, place: int) -> dict[str, str]:
    return {name: cells[place].value for name, cells in table.rows}


@pytest.mark.parametrize("order", ["few first", "many first"])
def test_gains_are_over_the_scenes_of_both(tmp_path: Path, order: str) -> None:
    """Eight scenes beside three hundred: what the others are worth is nothing to the pair."""
    store = Store(tmp_path)
    few = evaluation(store, "few", [labels_of(10, 2)] * 8)
    many = evaluation(store, "many", [labels_of(5, 1)] * 8 + [labels_of(0, 8)] * 292)
    first, second = (few, many) if order == "few first" else (many, few)
    found = column(gains(tmp_path, first, second), 1)
    # helpfulness (1 + 0.5) / 2 = 0.75 and (0.5 + 0.5) / 2 = 0.5; chair_i 0.2 and 0.1, chair_s 0.5
    helpful, honest = ("-33.3 %", "+25.0 %") if order == "few first" else ("+50.0 %", "-50.0 %")
    assert found == {
        "helpful": helpful,
        "honest": honest,
        "harmless": "+0.0 %",
        "scenes in both": "8",
    }


def test_a_scene_that_is_drawn_twice_is_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = evaluation(store, "one", [labels_of(5, 2)] * 4, clusters="abca")
    second = evaluation(store, "two", [labels_of(10, 2)] * 4, clusters="abca")
    found = column(gains(tmp_path, first, second), 1)
    assert (found["helpful"], found["scenes in both"]) == ("+50.0 %", "3")


def test_no_scene_in_both(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = evaluation(store, "one", [labels_of(5, 2)])
    second = evaluation(store, "two", [labels_of(10, 2)])
    rows = second.path / "responses.jsonl"
    rows.write_text(rows.read_text().replace('"scene": [0]', '"scene": [7]'))
    table = gains(tmp_path, first, second)
    assert column(table, 1) == {
        "helpful": "-",
        "honest": "-",
        "harmless": "-",
        "scenes in both": "0",
    }
    assert set(column(table, 0).values()) == {"-"}


def test_rows_without_labels_are_not_paired(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = evaluation(store, "one", [labels_of(5, 2)], kept=False)
    second = evaluation(store, "two", [labels_of(10, 1)])
    found = column(gains(tmp_path, first, second), 1)
    assert (found["helpful"], found["honest"]) == ("+50.0 %", "+25.0 %")
    assert found["scenes in both"] == "not paired"


def test_benchmarks_of_ones_own_are_told_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    model = store.model("dress_stage2")
    for name, hits in (("mine.First", [1, 1]), ("mine.Second", [0, 0])):
        store.evaluation(model, "best", hits, benchmark={"_target_": name})
    (column,) = columns_of(
        select((), tmp_path).evaluations, {}, expected=(), combine_of=lambda _: None
    )
    assert set(column.suites) == {"mine.First", "mine.Second"}
