"""Tables of a report: a row per figure, a column per arm, as text."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from dress.evaluation.report.columns import Column
from dress.evaluation.report.compare import (
    GAIN_INPUTS,
    INTERACTION,
    Figure,
    Figures,
    Gains,
    sign,
    world_gains,
)
from dress.evaluation.table import HEADLINE, number

GAIN_SCENES = "scenes in both"
MISSING = "missing"
WORLD = "world"
HEADLINE_TITLE, INTERACTION_TITLE, OTHER_TITLE = "Headline", "Interaction", "Other metrics"
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
    """Return the world's headline, turns of feedback, a table per benchmark and all the rest.

    What has no interval, such as counts of responses, stands last.
    """
    ranged = {name for part in figures for name, figure in part.items() if figure.low is not None}
    names = {name for part in figures for name in part}
    parts: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names, key=lambda name: (name not in ranged, _rank(name))):
        parts[_title(name)].append(name)
    return [make_table(title, columns, figures, names) for title, names in parts.items()]


def _title(name: str) -> str:
    benchmark = name.split("/")[0]
    if is_headline(name):
        return HEADLINE_TITLE
    if OVER_TURNS.fullmatch(name):
        return INTERACTION_TITLE
    return OTHER_TITLE if benchmark in (WORLD, "judge") else benchmark


def is_headline(name: str) -> bool:
    return name in {f"{WORLD}/{quantity}" for quantity in HEADLINE}


def _rank(name: str) -> tuple[int, int, str]:
    quantity = name.rsplit("/", 1)[-1]
    if is_headline(name):
        return HEADLINE.index(quantity), 0, name
    # what is over a whole benchmark stands before its categories
    return len(HEADLINE) + (not quantity.startswith("turn_")), name.count("/"), name


def make_table(
    title: str, columns: Sequence[Column], figures: Sequence[Figures], names: Sequence[str]
) -> Table:
    """Lay out these figures of all columns that have one or are missing."""
    shared = os.path.commonpath([name.rpartition("/")[0] for name in names])
    kept = [
        (column, part)
        for column, part in zip(columns, figures, strict=True)
        if column.missing or not part.keys().isdisjoint(names)
    ]
    rows = tuple(
        (
            name.removeprefix(f"{shared}/"),
            tuple(_cell(column, part.get(name), name) for column, part in kept),
        )
        for name in names
    )
    return Table(title, tuple(column.label for column, _ in kept), rows)


def _cell(column: Column, figure: Figure | None, name: str) -> Cell:
    if figure is None:
        return Cell(MISSING if column.missing else "-")
    interval = "" if figure.low is None else f"[{figure.low:.3f}, {figure.high:.3f}]"
    difference = figure.difference
    if difference is None:
        counted = figure.low is None
        change = "" if figure.change is None else number(figure.change, "+", counted=counted)
        return Cell(number(figure.value, counted=counted), interval, change)
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
    columns = [c for c in columns if c.missing or c.metrics.keys() >= GAIN_INPUTS]
    base = next((place for place, column in enumerate(columns) if not column.missing), None)
    if base is None or len(columns) < 2:
        return None
    gains = [
        None if place == base else world_gains(columns[base], column)
        for place, column in enumerate(columns)
    ]
    rows = tuple(
        (name, tuple(_gain(c, part, name) for c, part in zip(columns, gains, strict=True)))
        for name in ("helpful", "honest", "harmless", GAIN_SCENES)
    )
    return Table("Relative gain", tuple(column.label for column in columns), rows)


def _gain(column: Column, gains: Gains | None, name: str) -> Cell:
    if column.missing or gains is None:
        return Cell(MISSING if column.missing else "-")
    if name == GAIN_SCENES:
        return Cell("not paired" if gains.scenes is None else str(gains.scenes))
    percent = gains.percent.get(name, math.nan)
    return Cell(f"{percent:+.1f} %" if math.isfinite(percent) else "-")
