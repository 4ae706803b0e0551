"""Which evaluations stand in one column of a report, and how columns are told apart."""

from __future__ import annotations

from pathlib import Path

from tests.reporting.report_store import Store
from tests.reporting.test_report_page import INTERACTION, WORLD, Reader, files


def test_equal_labels_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed in (0, 1):
        store.evaluation(store.model("dress_stage2", seed=seed), "best", [1, 0])
    blank = {"_target_": "dress.toy.Benchmark", "images": "blank"}
    store.evaluation(store.model("dress_stage2", seed=0), "best", [0, 0], benchmark=blank)
    labels = Reader(files(tmp_path)[0]).row("Headline")
    assert sorted(labels) == [
        "dress_stage2 best, model seed 0, images blank",
        "dress_stage2 best, model seed 0, images not given",
        "dress_stage2 best, model seed 1",
    ]


def test_benchmarks_of_one_model_share_a_column_and_blank_pictures_have_their_own(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    model = store.model("dress_stage3")
    for node in (
        {"_target_": WORLD, "images": "true"},
        {"_target_": INTERACTION, "images": "true", "first": "own"},
        {"_target_": INTERACTION, "images": "true", "first": "faulty"},
        {"_target_": INTERACTION, "images": "blank", "first": "own"},
    ):
        store.evaluation(model, "best", [1, 0], benchmark=node)
    labels = Reader(files(tmp_path)[0]).row("Headline")
    assert sorted(labels) == ["dress_stage3 best, images blank", "dress_stage3 best, images true"]
