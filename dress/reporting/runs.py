"""What a run logged and what it took, read from the folder of its artifact."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from PIL import Image

from dress.artifact import HISTORY, LINEAGE, MARKER, Artifact
from dress.chat.images import decode_image
from dress.errors import InputError
from dress.files import read_lines
from dress.reporting.comparison import Figure, figures_of
from dress.reporting.dashboard import by_turn

Curve = tuple[tuple[int, float], ...]  # step, value
RATE = "train/tokens_per_second"
_CLOCK_SLACK = 10.0  # seconds between `created` and the file that holds it
SAMPLES, PAGE = "samples.jsonl", "samples.html"
_PICTURE = re.compile(r"\.p(\d+) \{[^}]*base64,([A-Za-z0-9+/=]+)\)")


@dataclass(frozen=True)
class Making:
    """Steps, seconds and tokens are None where the artifact does not tell."""

    name: str
    kind: str
    steps: int | None
    seconds: float | None
    tokens: float | None
    amount: str
    train: Curve = ()
    validation: Curve = ()


def making_of(artifact: Artifact) -> Making:
    history = timed(read_lines(artifact.path / HISTORY))
    kind = artifact.lineage["kind"]
    if not history:
        seconds = file_seconds(artifact)
        return Making(artifact.name, kind, None, seconds, None, _amount(artifact))
    return Making(
        name=artifact.name,
        kind=kind,
        steps=max(line["step"] for line in history),
        seconds=sum(line["seconds"] for line in history),
        tokens=sum(line[RATE] * line["seconds"] for line in history if RATE in line) or None,
        amount=_amount(artifact),
        train=_curve(history, "train/loss"),
        validation=_curve(history, "val/loss"),
    )


def timed(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines that count, with the `seconds` since the line before.

    Steps that an interrupted run made again count once, and the pause between its parts not at
    all. The time before the first line is not recorded: it is taken to be that before the second.
    """
    kept: list[dict[str, Any]] = []
    before: float | None = None
    for line in lines:
        if "resumed_at" in line:
            kept = [old for old in kept if old["step"] <= line["resumed_at"]]
        elif line.get("step") is not None:
            seconds = 0.0 if before is None else line["time"] - before
            kept.append({**line, "seconds": seconds})
        before = line["time"]
    if len(kept) > 1 and kept[0]["seconds"] == 0.0:
        kept[0]["seconds"] = kept[1]["seconds"]
    return kept


def _curve(history: Iterable[Mapping[str, Any]], name: str) -> Curve:
    return tuple((line["step"], line[name]) for line in history if name in line)


def file_seconds(artifact: Artifact) -> float | None:
    """Return the time from the first file to the last; None where copying has changed it."""
    created = datetime.fromisoformat(artifact.lineage["created"]).timestamp()
    first = (artifact.path / LINEAGE).stat().st_mtime
    if abs(first - created) > _CLOCK_SLACK:
        return None
    return (artifact.path / MARKER).stat().st_mtime - created


def _amount(artifact: Artifact) -> str:
    """Say how much the artifact holds, for shards."""
    metrics = artifact.metrics
    groups = sum(metrics.get(f"shards/{split}", 0) for split in ("train", "validation"))
    responses = metrics.get("feedback/responses", 0)
    parts = {"groups": groups, "responses": responses}
    return ", ".join(f"{count:,.0f} {what}" for what, count in parts.items() if count)


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
        return figures_of(self.artifact.metrics).get(name)

    def over_turns(self, name: str) -> dict[int, Figure]:
        """Return a figure per turn of feedback."""
        turns = {n: figures_of(part) for n, part in by_turn(self.artifact.metrics).items()}
        return {number: figures[name] for number, figures in turns.items() if name in figures}

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
