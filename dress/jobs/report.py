"""job=report: evaluations side by side, on one HTML page and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from dress.artifact import Artifact
from dress.errors import InputError
from dress.files import write_text
from dress.jobs.job import Job
from dress.reporting.selection import Selection, select
from dress.settings import Whole

BENCHMARK = re.compile(r"(dress\.evaluation\.benchmarks\.\w+)\.([A-Z]\w*|interaction)")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a report is made of (conf/report)."""

    after: bool
    artifacts: Sequence[str]
    expected: Sequence[str | int]
    title: str | int
    examples: Whole
    out: str | None


def run(job: Job) -> Artifact:
    return write(job, select(Shown(**job.node("report")).artifacts, job.store.root))


def write(job: Job, selection: Selection) -> Artifact:
    """Return the report on these evaluations, made now or found."""
    shown = Shown(**job.node("report"))
    nodes = {name: getattr(shown, name) for name in ("title", "expected", "examples")}
    parents = {artifact.name: artifact for artifact in selection.artifacts}
    with job.building(kind="report", nodes=nodes, parents=parents, name="report") as building:
        if not building.reused:
            from dress.reporting.page import render  # matplotlib: a second

            files = render(
                selection,
                title=str(shown.title),
                expected=[str(label) for label in shown.expected],
                examples=shown.examples,
                combine_of=combine_of,
            )
            for name, text in files.items():
                write_text(building.path / name, text)
    if shown.out:
        _copy(building.artifact, Path(shown.out))
    return building.artifact


def combine_of(evaluation: Artifact) -> Any:
    """Return how the benchmark of an evaluation makes metrics from labels; None if not known.

    The name in the artifact's config may only lead to one of our own benchmarks.
    """
    node = dict(evaluation.config.get("benchmark") or {})
    match = BENCHMARK.fullmatch(str(node.pop("_target_", "")))
    if match is None:
        return None
    try:
        return getattr(import_module(match[1]), match[2])(**node).metrics
    except (ImportError, AttributeError, TypeError, InputError):  # of another version of the code
        return None


def _copy(artifact: Artifact, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in artifact.path.glob("report.*"):
            write_text(folder / file.name, file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"cannot write to {folder} ({error.strerror}): set report.out to a folder that you may "
            "write to."
        ) from error
