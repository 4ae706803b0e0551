"""What making an artifact took: loss curves, time and tokens, read from its history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dress.artifact import HISTORY, LINEAGE, MARKER, Artifact
from dress.files import read_lines

Curve = tuple[tuple[int, float], ...]  # step, value
RATE = "train/tokens_per_second"
_CLOCK_SLACK = 10.0  # seconds between `created` and the file that holds it


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
