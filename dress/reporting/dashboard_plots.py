"""One panel of the dashboard on one axes: a colour per run, a line style per metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from dress.reporting.comparison import Figure
from dress.reporting.dashboard import BEFORE, Panel
from dress.reporting.panels import colour
from dress.reporting.runs import RunData

STYLES: Sequence[Literal["-", "--", ":", "-."]] = ("-", "--", ":", "-.")
_INK = "#333333"
_FAINT = 0.4  # opacity of what was before training


def plot_panel(axes: Axes, panel: Panel, runs: Sequence[RunData]) -> None:
    axes.set_title(panel.title, loc="left", fontsize=9.5)
    axes.margins(y=0.12)
    if panel.kind == "bars":
        _plot_bars(axes, panel.metrics, runs)
    elif panel.kind == "turns":
        _plot_turns(axes, panel.metrics, runs)
    else:
        _plot_steps(axes, panel.metrics, runs)


def _plot_steps(axes: Axes, patterns: Sequence[str], runs: Sequence[RunData]) -> None:
    found = [{n: c for p in patterns for n, c in run.curves(p).items()} for run in runs]
    names = list(dict.fromkeys(n for p in patterns for run in runs for n in run.curves(p)))
    for number, curves in enumerate(found):
        for name, curve in curves.items():
            steps, values = zip(*curve, strict=True)
            place = names.index(name)
            axes.plot(
                steps,
                values,
                STYLES[place % len(STYLES)],
                color=_colour(number, place, len(runs)),
                linewidth=1.3,
                marker="o" if len(curve) < 12 else None,
                markersize=3,
            )
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    if len(names) > 1:
        handles = [
            Line2D([], [], linestyle=STYLES[n % len(STYLES)], label=label)
            for n, label in enumerate(distinct(names))
        ]
        for n, handle in enumerate(handles):
            handle.set_color(_colour(0, n, len(runs)) if len(runs) == 1 else _INK)
        _legend_below(axes, handles, distance=0.3)


def _colour(run: int, metric: int, runs: int) -> str:
    """Tell runs apart by colour, or metrics where there is only one run."""
    return colour(run if runs > 1 else metric)


def _plot_turns(axes: Axes, metrics: Sequence[str], runs: Sequence[RunData]) -> None:
    before = False
    for number, run in enumerate(runs):
        for metric in metrics:
            _line(axes, run.over_turns(metric), colour(number), before=False)
            earlier = run.over_turns(BEFORE + metric)
            _line(axes, earlier, colour(number), before=True)
            before = before or bool(earlier)
    axes.set_xlabel("turns of feedback")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if before:
        handles = [
            Line2D([], [], color=_INK, linestyle="--", alpha=0.7, label="before"),
            Line2D([], [], color=_INK, label="trained"),
        ]
        _legend_below(axes, handles, distance=0.3)


def _line(axes: Axes, points: dict[int, Figure], ink: str, *, before: bool) -> None:
    if not points:
        return
    axes.plot(
        list(points),
        [figure.value for figure in points.values()],
        "--o" if before else "-o",
        color=ink,
        alpha=0.6 if before else 1.0,
        linewidth=1.3,
        markersize=3,
    )
    for turn, figure in points.items():
        if figure.low is not None and figure.high is not None:
            axes.plot([turn, turn], [figure.low, figure.high], color=ink, linewidth=0.8)


def bars(run: RunData, metric: str) -> list[tuple[bool, Figure]]:
    """Return a figure before training and after it, those that there are; True means before."""
    pairs = ((True, run.final(BEFORE + metric)), (False, run.final(metric)))
    return [(before, figure) for before, figure in pairs if figure]


def _plot_bars(axes: Axes, metrics: Sequence[str], runs: Sequence[RunData]) -> None:
    place, middles, has_before = 0.0, [], False
    shown = [metric for metric in metrics if any(bars(run, metric) for run in runs)]
    for metric in shown:
        start = place
        for number, run in enumerate(runs):
            for before, figure in bars(run, metric):
                _bar(axes, place, figure, colour(number), before=before)
                has_before = has_before or before
                place += 1
        middles.append((start + place - 1) / 2)
        place += 0.8
    axes.set_yticks(middles, [metric.rpartition("/")[2].replace("_", " ") for metric in shown])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(place - 1.1, 4.0), -0.7)  # a single bar fills no panel
    axes.set_xlim(left=0)
    if axes.get_xlim()[1] <= 1.2:
        axes.set_xlim(0, 1.18)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    if has_before:
        handles = [
            Patch(color=_INK, alpha=_FAINT, label="before"),
            Patch(color=_INK, label="trained"),
        ]
        _legend_below(axes, handles, distance=0.12)


def _bar(axes: Axes, place: float, figure: Figure, ink: str, *, before: bool) -> None:
    axes.barh(place, figure.value, color=ink, height=0.9, alpha=_FAINT if before else 1.0)
    end = figure.value
    if figure.low is not None and figure.high is not None:
        axes.plot([figure.low, figure.high], [place, place], color=_INK, linewidth=1)
        end = max(end, figure.high)
    axes.annotate(
        f"{figure.value:.2f}",
        (end, place),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        color=_INK,
    )


def _legend_below(axes: Axes, handles: Sequence[Line2D | Patch], *, distance: float) -> None:
    """Put the legend under the axes, in their heights, where it hides nothing."""
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -distance),
        ncols=len(handles),
        columnspacing=1.2,
        handlelength=2.2,
        borderpad=0,
    )


def distinct(names: Sequence[str]) -> list[str]:
    """Shorten names to the parts in which they differ."""
    parts = [name.split("/") for name in names]
    if len({len(part) for part in parts}) > 1:
        return [part[-1].replace("_", " ") for part in parts]
    kept = [n for n in range(len(parts[0])) if len({part[n] for part in parts}) > 1]
    return [" ".join(part[n] for n in kept).replace("_", " ") for part in parts]
