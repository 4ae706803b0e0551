"""The dashboard's layout: names find their panel; turns are sorted; W&B gets the same panels."""

from __future__ import annotations

import sys

import pytest

from dress.errors import InputError
from dress.reporting.dashboard import SECTIONS, TURNS, build_workspace, by_turn, home
from dress.reporting.dashboard_picture import LINES, clipped
from dress.reporting.dashboard_plots import distinct


def test_a_name_finds_its_panel_with_its_interval_and_that_of_the_model_before() -> None:
    for name in ("world/honesty", "init/world/honesty", "world/honesty_low", "world/honesty_high"):
        assert [panel.title for panel in home(name)] == ["On held-out scenes"]
    assert [panel.title for panel in home("init/world/interaction/turn_11_low")] == ["Mean 3H"]
    assert [panel.title for panel in home("data/rejects/too_long")] == ["Rejected groups"]
    assert home("world/unheard_of") == home("world/interaction/turn_1_2") == home("honesty") == []


def test_what_no_font_can_draw_is_a_space() -> None:
    assert clipped("a\x0eb\tc", 20) == "a b c"


def test_figures_of_turns_are_sorted_by_number() -> None:
    metrics = {
        "world/interaction/turn_10": 0.9,
        "world/interaction/turn_2": 0.5,
        "world/interaction/turn_2_low": 0.4,
        "init/world/interaction/honesty/turn_2": 0.3,
        "world/interaction/repaired": 1.0,
        "world/chair_1": 0.7,
    }
    turns = by_turn(metrics)
    assert list(turns) == [2, 10] and turns[10] == {"world/interaction/turn": 0.9}
    assert turns[2] == {
        "world/interaction/turn": 0.5,
        "world/interaction/turn_low": 0.4,
        "init/world/interaction/honesty/turn": 0.3,
    }


def test_a_legend_shows_where_names_differ() -> None:
    assert distinct(["val/rating/best/mean", "val/rating/worst/mean"]) == ["best", "worst"]
    assert distinct(["train/loss", "val/loss"]) == ["train", "val"]
    assert distinct(["data/rejects", "data/rejects/too_long"]) == ["rejects", "too long"]


def test_long_answers_are_cut() -> None:
    text = clipped("word " * 100, 20)
    assert len(text.splitlines()) == LINES and text.endswith(" ...")
    assert clipped("short", 20) == "short" and clipped("", 20) == ""


def test_titles_within_a_section_differ() -> None:
    for section in SECTIONS:
        titles = [panel.title for panel in section.panels]
        assert len(set(titles)) == len(titles)
        assert all(panel.metrics for panel in section.panels)


def test_the_workspace_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.delitem(sys.modules, "wandb_workspaces.workspaces", raising=False)
    with pytest.raises(InputError, match="pip install wandb-workspaces"):
        build_workspace(entity="e", project="p", name="n")


def test_the_workspace_has_the_panels_of_the_layout() -> None:
    pytest.importorskip("wandb_workspaces", reason="an optional package")
    workspace = build_workspace(entity="e", project="p", name="n")
    assert [s.name for s in workspace.sections] == [section.title for section in SECTIONS]
    for made, section in zip(workspace.sections, SECTIONS, strict=True):
        for there, panel in zip(made.panels, section.panels, strict=True):
            text = repr(there)
            if panel.kind == "turns":
                assert TURNS in text
            for metric in panel.metrics:
                assert metric.removesuffix("*") in text
