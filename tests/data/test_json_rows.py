"""Rows of a JSON array, of JSON lines and of objects one after another, one by one."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from dress.data.sources import json_rows as module
from dress.data.sources.json_rows import json_rows
from dress.errors import InputError

ROWS = [{"a": 1}, {"b": '} ] , \u00e9 \\" {'}, {}, {"c": [{"d": None}]}]


@pytest.mark.parametrize("read", [1, 2, 7, 2**20])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_gives_its_objects_whatever_is_read_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: int, indent: int | None
) -> None:
    monkeypatch.setattr(module, "_READ", read)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS, indent=indent, ensure_ascii=False) + "\n")

    assert list(json_rows(path)) == list(enumerate(ROWS, start=1))


@pytest.mark.parametrize("read", [1, 2**20])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("between", ["\n", "\r\n", "\n\n", "", " "])
def test_objects_one_after_another_whatever_stands_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: int, indent: int | None, between: str
) -> None:
    monkeypatch.setattr(module, "_READ", read)
    path = tmp_path / "rows"
    path.write_text(between.join(json.dumps(row, indent=indent) for row in ROWS), newline="")
    assert list(json_rows(path)) == list(enumerate(ROWS, start=1))


def test_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    for text in ("[]", " [ ] ", "", "\n"):
        path.write_text(text)
        assert list(json_rows(path)) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[{"a": 1}', "cut short"),
        ('[{"a": 1},', "row 2, is not a JSON object"),
        ('[{"a": 1}, {"b"', "row 2, is not a JSON object"),
        ('[{"a": 1} {"b": 2}]', "',' is missing"),
        ('[{"a": 1}, 3]', "row 2, is not a JSON object"),
        ('[{"a": 1}] {}', "goes on after the end"),
        ('[{"a": ' + "[" * 100_000, "row 1, is not a JSON object"),
        ('{"a": 1}\n{"b": 2', "row 2, is not a JSON object"),
        ('{"a": 1}\nno JSON\n{"b": 2}', "row 2, is not a JSON object"),
        ('{"a": 1}\n{"b": "cut\n{"c": 3}', "row 2, is not a JSON object"),
        ('{"a": 1}, {"b": 2}', "row 2, is not a JSON object"),
        ('{"a": 1}\n[{"b": 2}]', "row 2, is not a JSON object"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(InputError, match=fault) as raised:
        list(json_rows(path))
    assert str(path) in str(raised.value)


def test_bytes_that_are_not_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b'[{"a": "\xff"}]')
    with pytest.raises(InputError, match="not UTF-8"):
        list(json_rows(path))


def test_memory_does_not_grow_with_the_array(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        path = tmp_path / f"{count}.json"
        row: dict[str, Any] = {"text": "x" * 1000}
        path.write_text(json.dumps([row] * count))
        tracemalloc.start()
        try:
            assert sum(1 for _ in json_rows(path)) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small, large = peak(3_000), peak(12_000)  # 3 and 12 MB of text
    assert large < small + 500_000  # a half of one piece that is read at a time


def test_of_a_key_twice_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    for text in ('{"a": 1, "a": 2}', '[{"a": 1, "a": 2}]'):
        path.write_text(text)
        assert list(json_rows(path)) == [(1, {"a": 2})]
