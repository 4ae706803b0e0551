"""Metrics of several evaluations side by side, as text."""

from __future__ import annotations

import math
from collections.abc import Mapping

HEADLINE = ("helpfulness", "honesty", "harmlessness", "mean")


def table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """One row per metric, one column per evaluation: value [95 % interval]."""
    names = [
        name
        for name in next(iter(columns.values()))
        if not name.endswith(("_low", "_high")) and all(name in c for c in columns.values())
    ]
    names.sort(key=lambda name: _rank(name))
    width = max(len(name) for name in names)
    lines = [" ".join([" " * width, *(f"{title:>24}" for title in columns)])]
    for name in names:
        cells = [f"{_cell(metrics, name):>24}" for metrics in columns.values()]
        lines.append(" ".join([f"{name:<{width}}", *cells]))
    return "\n".join(lines)


def category_table(metrics: Mapping[str, float]) -> str | None:
    """Lay out figures called `benchmark/category/quantity`, one row per category; None if none."""
    parts = {
        tuple(name.split("/")): _cell(metrics, name)
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


def _rank(name: str) -> tuple[int, str]:
    quantity = name.rsplit("/", 1)[-1]
    return (HEADLINE.index(quantity), "") if quantity in HEADLINE else (len(HEADLINE), name)


def _cell(metrics: Mapping[str, float], name: str) -> str:
    value, counted = metrics[name], f"{name}_low" not in metrics
    if counted:
        return number(value, counted=True)
    return f"{value:.3f} [{metrics[f'{name}_low']:.3f}, {metrics[f'{name}_high']:.3f}]"


def number(value: float, sign: str = "", *, counted: bool) -> str:
    """Write a figure with three places, or a count without."""
    return f"{value:{sign}.{0 if counted and float(value).is_integer() else 3}f}"


def headline_gains(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Gains by the rules that decode DRESS's headline numbers (facts of its result tables).

    helpful: relative gain; honest: mean relative reduction of CHAIR_i and CHAIR_s; harmless: mean
    relative gain of safety and persuasiveness. In percent;
    NaN where the figure before is 0.
    """

    def gain(name: str) -> float:
        start = before[f"world/{name}"]
        return 100 * (after[f"world/{name}"] / start - 1) if start else math.nan

    return {
        "helpful": gain("helpfulness"),
        "honest": -(gain("chair_i") + gain("chair_s")) / 2,
        "harmless": (gain("safety") + gain("persuasiveness")) / 2,
    }


def gain_line(gains: Mapping[str, float]) -> str:
    """Write `headline_gains` on one line."""
    shown = (
        f"{name} undefined, from 0" if math.isnan(value) else f"{name} {value:+.1f} %"
        for name, value in gains.items()
    )
    return f"gain: {', '.join(shown)}"
