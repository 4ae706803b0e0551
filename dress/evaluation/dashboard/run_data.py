"""What a dashboard shows of a run, read from the folder of its artifact."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from PIL import Image

from dress.artifact import HISTORY, Artifact
from dress.chat.images import decode_image
from dress.errors import InputError
from dress.evaluation.dashboard.layout import by_turn
from dress.evaluation.report.training import Curve, timed
from dress.files import read_lines

SAMPLES, PAGE = "samples.jsonl", "samples.html"
_PICTURE = re.compile(r"\.p(\d+) \{[^}]*base64,([A-Za-z0-9+/=]+)\)")


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class RunData:
    """One trained model: its name, history, final figures and sampled answers."""

    label: str
    artifact: Artifact

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        return timed(read_lines(self.artifact.path / HISTORY))

    def logged(self) -> set[str]:
        """Name everything the run logs."""
        names = {name for line in self.history for name in line if "/" in name}
        samples = {"val/samples"} if (self.artifact.path / SAMPLES).exists() else set()
        return names | set(self.artifact.metrics) | samples

    def curves(self, pattern: str) -> dict[str, Curve]:
        """Return the curve over training of each metric that fits."""
        names = {n for line in self.history for n in line if fnmatchcase(n, pattern)}
        return {
            name: tuple((int(line["step"]), line[name]) for line in self.history if name in line)
            for name in sorted(names)
        }

    def final(self, name: str) -> Figure | None:
        return _figure(self.artifact.metrics, name)

    def over_turns(self, name: str) -> dict[int, Figure]:
        """Return a figure per turn of feedback."""
        turns = {n: _figure(part, name) for n, part in by_turn(self.artifact.metrics).items()}
        return {number: figure for number, figure in turns.items() if figure}

    def samples(self, count: int) -> list[tuple[Image.Image, dict[str, Any]]]:
        """Return the last answers to the first fixed prompts, with their thumbnails."""
        records = list(read_lines(self.artifact.path / SAMPLES))
        last = max((record["step"] for record in records), default=0)
        # a resumed run answers some steps again: the last answer counts
        latest = {r["image"]: r for r in records if r["step"] == last}
        page = self.artifact.path / PAGE
        pictures = dict(_PICTURE.findall(page.read_text(encoding="utf-8")) if latest else [])
        return [
            (decode_image(base64.b64decode(pictures[str(i)])), latest[i])
            for i in sorted(latest)[:count]
            if str(i) in pictures
        ]


def _figure(metrics: Any, name: str) -> Figure | None:
    if name not in metrics:
        return None
    return Figure(metrics[name], metrics.get(f"{name}_low"), metrics.get(f"{name}_high"))


def open_runs(paths: Sequence[str]) -> list[RunData]:
    """Open trained models; InputError for anything else. Labels are as short as differ."""
    artifacts = [Artifact.open(path) for path in paths]
    for artifact in artifacts:
        if (kind := artifact.lineage["kind"]) != "model":
            raise InputError(
                f"{artifact.path} holds {kind}, not a model: give the folders of training runs."
            )
    short = [artifact.name.rpartition("-")[0] for artifact in artifacts]
    return [
        RunData(name if short.count(name) == 1 else artifact.name, artifact)
        for name, artifact in zip(short, artifacts, strict=True)
    ]
