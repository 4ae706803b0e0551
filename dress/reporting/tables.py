"""Tables of figures: for the terminal as text, for a report as cells."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dress.reporting.columns import Column
from dress.reporting.comparison import (
    GAIN_INPUTS,
    INTERACTION,
    Figure,
    Figures,
    Gains,
    sign,
    world_gains,
)

HEADLINE = ("helpfulness", "honesty", "harmlessness", "mean")
GAIN_SCENES = "scenes in both"
MISSING = "missing"
WORLD = "world"
HEADLINE_TITLE, INTERACTION_TITLE, OTHER_TITLE = "Headline", "Interaction", "Other metrics"
OVER_TURNS = re.compile(rf".*{INTERACTION}(?:(turn|gain)_\d+|repaired|overcorrection)")


def table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """One row per metric, one column per evaluation: value [95 % interval]."""
    names = [
        name
        for name in next(iter(columns.values()))
        if not name.endswith(("_low", "_high")) and all(name in c for c in columns.values())
    ]
    names.sort(key=_text_rank)
    width = max(len(name) for name in names)
    lines = [" ".join([" " * width, *(f"{title:>24}" for title in columns)])]
    for name in names:
        cells = [f"{_text_cell(metrics, name):>24}" for metrics in columns.values()]
        lines.append(" ".join([f"{name:<{width}}", *cells]))
    return "\n".join(lines)


def category_table(metrics: Mapping[str, float]) -> str | None:
    """Lay out figures called `benchmark/category/quantity`, one row per category; None if none."""
    parts = {
        tuple(name.split("/")): _text_cell(metrics, name)
        for name in metrics
        if name.count("/") == 2 and not name.endswith(("_low", "_high"))
    }
    if not parts or any(name.startswith("world/") for name in metrics):
        return None
    quantities = list(dict.fromkeys(quantity for _, _, quantity in parts))
    categories = list(dict.fromkeys((name, category) for name, category, _ in parts))
    width = max(len(category) for _, category in categories)
    lines = [" ".join([" " * width, *(f"{quantity:>24}" for quantity in quantities)])]
    for name, category in categories:
        cells = [f"{parts.get((name, category, quantity), ''):>24}" for quantity in quantities]
        lines.append(" ".join([f"{category:<{width}}", *cells]))
    return "\n".join(lines)


def _text_rank(name: str) -> tuple[int, str]:
    quantity = name.rsplit("/", 1)[-1]
    return (HEADLINE.index(quantity), "") if quantity in HEADLINE else (len(HEADLINE), name)


def _text_cell(metrics: Mapping[str, float], name: str) -> str:
    value, counted = metrics[name], f"{name}_low" not in metrics
    if counted:
        return number(value, counted=True)
    return f"{value:.3f} [{metrics[f'{name}_low']:.3f}, {metrics[f'{name}_high']:.3f}]"


def number(value: float, sign: str = "", *, counted: bool) -> str:
    """Write a figure with three places, or a count without."""
    return f"{value:{sign}.{0 if counted and float(value).is_integer() else 3}f}"


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
