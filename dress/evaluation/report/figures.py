"""Bars of the headline, and what each question type gained: panels that a phone stacks."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from dress.evaluation.report.compare import Figure, Figures, sign
from dress.evaluation.report.drawing import LINE, Panel, colour, draw, wrapped
from dress.evaluation.report.tables import WORLD
from dress.evaluation.table import HEADLINE


def headline_panels(labels: Sequence[str], figures: Sequence[Figures]) -> list[Panel]:
    """Draw one bar per column and headline metric, with its interval."""
    names = {name for part in figures for name in part}
    shown = [f"{WORLD}/{quantity}" for quantity in HEADLINE if f"{WORLD}/{quantity}" in names]
    return [_bars(name, labels, [part.get(name) for part in figures]) for name in shown]


def _bars(name: str, labels: Sequence[str], figures: Sequence[Figure | None]) -> Panel:
    def plot(axes: Axes) -> None:
        for place, figure in enumerate(figures):
            if figure is None:
                axes.text(0.01, place, "missing", va="center", color="#777")
                continue
            axes.barh(place, figure.value, color=colour(place), height=0.62)
            _whisker(axes, figure.value, place, figure.low, figure.high, "#222")
        axes.set_yticks(range(len(labels)), [wrapped(label, 22) for label in labels])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(0, max([1.0, *(f.high or f.value for f in figures if f)]))

    parts = [f"{label} {f.value:.3f}" for label, f in zip(labels, figures, strict=True) if f]
    return draw(name, f"Bars of {name}: {', '.join(parts)}", plot, height=0.8 + LINE * len(labels))


def _whisker(
    axes: Axes, x: float, y: float, low: float | None, high: float | None, ink: str
) -> None:
    if low is not None and high is not None:
        axes.plot([low, high], [y, y], color=ink, linewidth=1.2, solid_capstyle="butt")


def gain_panels(labels: Sequence[str], figures: Sequence[Figures]) -> list[Panel]:
    """Draw, per column after the first, what each question type gained; right is better."""
    panels = []
    for place, (label, part) in enumerate(zip(labels, figures, strict=True)):
        gains = {n: f for n, f in part.items() if f.change is not None and sign(n)}
        if gains:
            panels.append(_gains(label, gains, colour(place)))
    return panels


def _gains(label: str, gains: Figures, ink: str) -> Panel:
    names = sorted(gains)

    def plot(axes: Axes) -> None:
        for place, name in enumerate(names):
            figure, way = gains[name], sign(name)
            assert figure.change is not None
            difference = figure.difference
            value = way * (difference.value if difference else figure.change)
            axes.plot(value, place, "o", color=ink, markersize=4.5)
            if difference:
                _whisker(axes, value, place, way * difference.low, way * difference.high, ink)
        axes.axvline(0, color="#999", linewidth=0.8)
        axes.set_yticks(range(len(names)), [_reading(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)

    parts = [f"{name} {gains[name].change:+.3f}" for name in names]
    return draw(
        label,
        f"Change by question type, {label}: {', '.join(parts)}",
        plot,
        height=0.8 + 0.22 * len(names),
    )


def _reading(name: str) -> str:
    return f"{name} ↓" if sign(name) < 0 else name
