"""Read JSON lines one by one; every complaint names the file and the line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dress.errors import InputError
from dress.files import not_utf8


def json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (line number, object) of every line that is not blank."""
    with path.open("rb") as lines:
        for number, data in enumerate(lines, start=1):
            try:
                line = data.decode("utf-8-sig")  # files put together have marks within
            except UnicodeDecodeError:
                raise not_utf8(path) from None
            if line.strip():
                yield number, _parse(line, path, number)


def _parse(line: str, path: Path, number: int) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise InputError(
            f"{path}, line {number}, is not a JSON object: repair the line or remove it."
        )
    return row
