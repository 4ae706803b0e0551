"""Tables of a report: a row per figure, a column per arm, as text."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dress.evaluation.report.columns import Column
from dress.evaluation.report.compare import INTERACTION, Figure, Figures, baseline, sign
from dress.evaluation.table import HEADLINE, headline_gains

GAIN_INPUTS = ("helpfulness", "chair_i", "chair_s", "safety", "persuasiveness")
MISSING = "missing"
WORLD = "world"
OVER_TURNS = re.compile(rf".*{INTERACTION}(?:(turn|gain)_\d+|repaired|overcorrection)")


@dataclass(frozen=True)
class Cell:
    """What stands in a cell; `verdict` is better or worse where the difference is significant."""

    value: str
    interval: str = ""
    change: str = ""
    p: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]  # name, cells


def metric_tables(columns: Sequence[Column], figures: Sequence[Figures]) -> list[Table]:
    """Return the headline, the turns of feedback and everything else; empty tables are left out."""
    names = sorted({name for part in figures for name in part}, key=_rank)
    headline = [name for name in names if _is_headline(name)]
    interaction = [name for name in names if OVER_TURNS.fullmatch(name)]
    rest = [name for name in names if name not in headline and name not in interaction]
    parts = [("Headline", headline), ("Interaction", interaction), ("Other metrics", rest)]
    return [make_table(title, columns, figures, part) for title, part in parts if part]


def _is_headline(name: str) -> bool:
    return name.count("/") == 1 and name.rsplit("/", 1)[-1] in HEADLINE


def _rank(name: str) -> tuple[int, str]:
    quantity = name.rsplit("/", 1)[-1]
    if _is_headline(name):
        return HEADLINE.index(quantity), name
    return len(HEADLINE) + (not quantity.startswith("turn_")), name


def make_table(
    title: str, columns: Sequence[Column], figures: Sequence[Figures], names: Sequence[str]
) -> Table:
    shared = os.path.commonpath([name.rpartition("/")[0] for name in names])
    if not shared.startswith(WORLD):
        shared = ""  # the figures of other benchmarks say whose they are
    rows = tuple(
        (
            name.removeprefix(f"{shared}/"),
            tuple(_cell(c, part.get(name), name) for c, part in zip(columns, figures, strict=True)),
        )
        for name in names
    )
    return Table(title, tuple(column.label for column in columns), rows)


def _cell(column: Column, figure: Figure | None, name: str) -> Cell:
    if figure is None:
        return Cell(MISSING if column.missing else "-")
    interval = "" if figure.low is None else f"[{figure.low:.3f}, {figure.high:.3f}]"
    difference = figure.difference
    if difference is None:
        change = "" if figure.change is None else f"{figure.change:+.3f}"
        return Cell(f"{figure.value:.3f}", interval, change)
    return Cell(
        f"{figure.value:.3f}",
        interval,
        f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]",
        "p < 0.001" if difference.p < 0.001 else f"p = {difference.p:.3f}",
        _verdict(sign(name) * difference.value) if difference.significant else "",
    )


def _verdict(gain: float) -> str:
    return "better" if gain > 0 else "worse" if gain < 0 else "differs"


def gain_table(columns: Sequence[Column]) -> Table | None:
    """Return the gains over the first column by the rules that decode DRESS's headline."""
    needed = {f"world/{name}" for name in GAIN_INPUTS}
    base = baseline(columns)
    if not needed <= columns[base].metrics.keys() or len(columns) < 2:
        return None
    gains = [
        headline_gains(columns[base].metrics, column.metrics)
        if place != base and needed <= column.metrics.keys()
        else None
        for place, column in enumerate(columns)
    ]
    rows = tuple(
        (name, tuple(_gain(c, part, name) for c, part in zip(columns, gains, strict=True)))
        for name in ("helpful", "honest", "harmless")
    )
    return Table("Relative gain", tuple(column.label for column in columns), rows)


def _gain(column: Column, gains: Mapping[str, float] | None, name: str) -> Cell:
    if gains is None or not math.isfinite(gains[name]):
        return Cell(MISSING if column.missing else "-")
    return Cell(f"{gains[name]:+.1f} %")
