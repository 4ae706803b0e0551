"""The counts of the code and the picture of its imports in docs/architecture.md."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("house")


@pytest.fixture
def draw(house: ModuleType) -> ModuleType:
    return importlib.import_module("draw_imports")


def graph(**edges: str) -> dict[str, frozenset[str]]:
    return {name: frozenset(targets.split()) for name, targets in edges.items()}


def test_the_committed_picture_is_what_the_command_draws(
    house: ModuleType, draw: ModuleType
) -> None:
    packages = house.package_graph(house.file_graph(ROOT, house.tracked_files(ROOT)))
    assert (ROOT / "docs" / "imports.svg").read_text() == draw.drawing(packages), (
        "the imports changed: python benchmarks/draw_imports.py docs/imports.svg"
    )


def test_imports_in_a_circle_are_found(house: ModuleType) -> None:
    straight = graph(a="b c", b="c", c="")
    assert house.circles(straight) == [] and house.pairs(straight) == []
    assert house.circles(graph(a="b", b="c", c="a d", d="")) == [["a", "b", "c"]]
    two = graph(a="b", b="a c", c="d", d="c")
    assert house.circles(two) == [["a", "b"], ["c", "d"]]
    assert house.pairs(two) == ["a and b", "c and d"]


def test_imports_anywhere_in_a_file_count(house: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "dress" / "data").mkdir(parents=True)
    (tmp_path / "dress" / "__init__.py").write_text("import json\n")
    one = tmp_path / "dress" / "data" / "one.py"
    one.write_text("from dress.data import two\nfrom dress.types import Turn\n")
    two = tmp_path / "dress" / "data" / "two.py"
    two.write_text("def f():\n    import dress.data.one as one\n    return one\n")
    (tmp_path / "dress" / "types.py").write_text("class Turn: ...\n")
    files = sorted(tmp_path.rglob("*.py"))
    found = house.file_graph(tmp_path, files)
    assert found == {
        "dress": frozenset(),
        "dress.data.one": frozenset({"dress.data.two", "dress.types"}),
        "dress.data.two": frozenset({"dress.data.one"}),
        "dress.types": frozenset(),
    }
    packages = house.package_graph(found)
    assert packages["dress.data"] == frozenset({"dress.types"})
    assert [house.local_imports(path) for path in (one, two)] == [0, 1]
    assert house.function_lengths(two) == [3]


def test_arrows_that_follow_from_others_are_left_out(draw: ModuleType) -> None:
    assert draw.without_shortcuts(graph(a="b c", b="c", c="")) == graph(a="b", b="c", c="")
    assert draw.heights(graph(a="b", b="c", c="", d="c")) == {"a": 2, "b": 1, "c": 0, "d": 1}


def test_each_package_is_drawn_once_and_each_arrow_leads_down(draw: ModuleType) -> None:
    packages = {
        "run": frozenset({"dress.jobs"}),
        "dress.jobs": frozenset({"lit_modules", "dress.data", "dress.types"}),
        "lit_modules": frozenset({"dress.data", "dress.types"}),
        "dress.data": frozenset({"dress.types", "dress.chat"}),
        "dress.chat": frozenset({"dress.types", "dress.data"}),
        "dress.types": frozenset(),
    }
    svg = draw.drawing(packages)
    labels = re.findall(r"<text [^>]*>([^<]*)<", svg)
    assert labels == [
        "types.py",
        "in a circle:",
        "chat  data",
        "lit_modules/",
        "dress/jobs/",
        "conf/ and run.py",
    ]
    arrows = re.findall(r'<path d="M\d+ (\d+) [^"]* (\d+)" fill="none"', svg)
    assert len(arrows) == 4 and all(int(start) < int(end) for start, end in arrows)
