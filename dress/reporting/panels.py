"""Panels of a report, drawn as SVG: bars, gains, turns of feedback, losses and calibration."""

from __future__ import annotations

import base64
import io
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from dress.artifact import Artifact
from dress.objectives.calibration import calibration_curve, calibration_error
from dress.reporting.comparison import Figure, Figures, sign
from dress.reporting.runs import Making
from dress.reporting.tables import HEADLINE, WORLD

WIDTH, HEIGHT = 3.6, 2.6  # inches; a line of text needs LINE more
LINE = 0.3
LEGEND = 0.15  # inches for a line of a legend
# Okabe and Ito's colours, told apart by colour-blind readers; the first column is grey
COLOURS = ("#7a7a7a", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "font.family": "sans-serif",
    "svg.hashsalt": "report",
    "text.parse_math": False,  # labels are plain text
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}
TURN = re.compile(r"(.+)/turn_(\d+)")


@dataclass(frozen=True)
class Panel:
    """One picture: a data URI, and in words what it shows."""

    source: str
    alt: str


def draw(title: str, alt: str, plot: Callable[[Axes], None], *, height: float = HEIGHT) -> Panel:
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
        canvas.suptitle(wrapped(title, 46), x=0.01, ha="left", fontsize=9.5)
        plot(canvas.subplots())
        buffer = io.BytesIO()
        canvas.savefig(buffer, format="svg", metadata={"Date": None})
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Panel(f"data:image/svg+xml;base64,{encoded}", alt)


def wrapped(text: str, width: int) -> str:
    """Break a name into lines that a panel has room for."""
    return textwrap.fill(text, width)


def colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


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


def interaction_panels(labels: Sequence[str], figures: Sequence[Figures]) -> list[Panel]:
    """Draw metrics over turns of feedback: a panel per metric, a line per column."""
    series: Mapping[str, dict[int, list[tuple[int, Figure]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for place, part in enumerate(figures):
        for name, figure in part.items():
            if match := TURN.fullmatch(name):
                series[match[1]][place].append((int(match[2]), figure))
    return [_turns(name, labels, lines) for name, lines in sorted(series.items())]


def _turns(
    name: str, labels: Sequence[str], lines: Mapping[int, list[tuple[int, Figure]]]
) -> Panel:
    shown = {place: wrapped(labels[place], 50) for place in lines}

    def plot(axes: Axes) -> None:
        for place, points in lines.items():
            points.sort(key=lambda point: point[0])
            turns, values = zip(*((turn, f.value) for turn, f in points), strict=True)
            axes.plot(turns, values, "o-", color=colour(place), markersize=4, label=shown[place])
            for turn, f in points:
                if f.low is not None and f.high is not None:
                    axes.plot([turn, turn], [f.low, f.high], color=colour(place), linewidth=1)
        axes.set_xticks(sorted({turn for points in lines.values() for turn, _ in points}))
        axes.set_xlabel("turns of feedback")
        axes.figure.legend(loc="outside lower left")  # many columns would hide the lines

    ends = [
        f"{labels[p]} from {v[0][1].value:.3f} to {v[-1][1].value:.3f}" for p, v in lines.items()
    ]
    height = HEIGHT + LEGEND * sum(label.count("\n") + 1 for label in shown.values())
    return draw(name, f"{name} over turns of feedback: {', '.join(ends)}", plot, height=height)


def loss_panels(makings: Sequence[Making]) -> list[Panel]:
    """Draw the loss of every training run over its steps."""
    return [_loss(making) for making in makings if making.train or making.validation]


def _loss(making: Making) -> Panel:
    def plot(axes: Axes) -> None:
        if making.train:
            steps, values = zip(*making.train, strict=True)
            axes.plot(steps, values, color=COLOURS[0], linewidth=0.9, label="training")
        if making.validation:
            steps, values = zip(*making.validation, strict=True)
            axes.plot(steps, values, "o-", color=COLOURS[1], markersize=3.5, label="validation")
        losses = [value for _, value in (*making.train, *making.validation)]
        if min(losses) > 0 and max(losses) > 10 * min(losses):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.legend()

    kind, curve = (
        ("validation", making.validation) if making.validation else ("training", making.train)
    )
    step, loss = curve[-1]
    title = making.name.rpartition("-")[0] or making.name
    return draw(title, f"Loss of {making.name}: last {kind} loss {loss:.3f} at step {step}", plot)


def calibration_panels(artifacts: Sequence[Artifact]) -> list[Panel]:
    """Draw how often each reward model is right, by how sure it is; none without such a model."""
    curves = {a.name: curve for a in artifacts if (curve := calibration_curve(a.metrics))}
    if not curves:
        return []
    errors = {name: calibration_error(curve) for name, curve in curves.items()}

    def plot(axes: Axes) -> None:
        axes.plot([0.5, 1], [0.5, 1], color=COLOURS[0], linewidth=0.9, linestyle=":")
        for place, (name, curve) in enumerate(curves.items(), start=1):
            sure, right, shares = zip(*curve, strict=True)
            label = wrapped(f"{name}, error {errors[name]:.3f}", 50)
            axes.plot(sure, right, color=colour(place), linewidth=1, label=label)
            axes.scatter(sure, right, s=[4 + 60 * share for share in shares], color=colour(place))
        axes.set_xlabel("probability given to the response that is scored higher")
        axes.set_ylabel("share in which it is")
        axes.figure.legend(loc="outside lower left")

    told = ", ".join(f"{name} {error:.3f}" for name, error in errors.items())
    return [
        draw(
            "Calibration on held-out pairs",
            f"Calibration of reward models, expected calibration error: {told}",
            plot,
            height=HEIGHT + LEGEND * len(curves),
        )
    ]
