"""Score rows on a benchmark of public files as job=evaluate does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dress.evaluation.benchmark import Judge
from dress.evaluation.public import PublicBenchmark
from dress.evaluation.response_file import read_responses
from dress.evaluation.scoring import score

Row = Mapping[str, Any]


def write_lines(path: Path, rows: Iterable[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def scored(
    benchmark: PublicBenchmark, rows: Iterable[Row], folder: Path, judge: Judge | None = None
) -> dict[str, float]:
    """Write the rows to a file and return the metrics; what is kept lies in `folder`."""
    path = write_lines(folder / "answers.jsonl", rows)
    found = read_responses(path, benchmark)
    return score(benchmark, found.answered, directory=folder, judge=judge)


def points(metrics: Mapping[str, float]) -> dict[str, float]:
    """Leave out the intervals and the name of the benchmark."""
    return {
        name.split("/", 1)[1]: value
        for name, value in metrics.items()
        if not name.endswith(("_low", "_high"))
    }
