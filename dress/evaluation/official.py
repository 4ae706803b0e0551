"""Write responses as the official scripts of a benchmark read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dress.evaluation.benchmark import Answered, Benchmark, Bridged
from dress.files import write_text

FOLDER = "official"


def write_official(benchmark: Benchmark, answered: Sequence[Answered], directory: Path) -> None:
    if not isinstance(benchmark, Bridged):
        return
    for name, text in benchmark.official(answered).items():
        path = directory / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)


def all_answered(benchmark: Benchmark, answered: Sequence[Answered]) -> bool:
    """Whether a script that goes by the order of the rows would join them rightly."""
    return len(answered) == sum(1 for _ in benchmark.examples())


def released_id(name: str) -> int | str:
    """Return an id as released, where it was a number before it was a name."""
    return int(name) if name.isdecimal() else name


def json_array(rows: Iterable[Mapping[str, Any]]) -> str:
    return json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n"


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
