"""Curves: metrics over turns of feedback, and losses over training steps."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from dress.evaluation.report.compare import Figure, Figures
from dress.evaluation.report.drawing import COLOURS, HEIGHT, LEGEND, Panel, colour, draw, wrapped
from dress.evaluation.report.training import Making

TURN = re.compile(r"(.+)/turn_(\d+)")


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
