"""The dashboard as one picture, drawn from the artifacts of runs.

A panel for which no run has anything is left out.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure as Canvas
from matplotlib.figure import SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from PIL import Image

from dress.errors import InputError
from dress.reporting.dashboard import SECTIONS, Panel, Section
from dress.reporting.dashboard_plots import bars, plot_panel
from dress.reporting.panels import STYLE, colour
from dress.reporting.runs import RunData

WIDTH, DPI = 12.8, 100  # inches, 1280 pixels
COLUMNS = 4
SAMPLES = 4
_TOP, _HEAD, _ROW, _BAR, _SAMPLE = 0.55, 0.36, 2.2, 0.13, 1.05  # inches
# left edge of a column and its width in characters
SAMPLE_COLUMNS = {"question": (0.0, 42), "response": (0.33, 55), "truth": (0.70, 48)}
LINES = 5


@dataclass(frozen=True)
class _Block:
    """A section with those of its panels that have something to show."""

    section: Section
    panels: Sequence[Panel]
    heights: Sequence[float]  # of its rows, inches

    @property
    def height(self) -> float:
        return _HEAD + sum(self.heights)


def draw_dashboard(runs: Sequence[RunData], *, title: str) -> Canvas:
    """Draw every section, 1280 pixels wide; InputError if the runs show nothing."""
    blocks = [block for section in SECTIONS if (block := _block(section, runs))]
    if not blocks:
        raise InputError("the runs logged nothing that the dashboard shows: name trained models.")
    heights = [block.height for block in blocks]
    with matplotlib.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.04)
        canvas = Canvas(figsize=(WIDTH, _TOP + sum(heights)), dpi=DPI, layout=layout)
        parts = canvas.subfigures(
            len(blocks) + 1, 1, squeeze=False, height_ratios=[_TOP, *heights]
        )[:, 0]
        _draw_head(parts[0], runs, title)
        for part, block in zip(parts[1:], blocks, strict=True):
            _draw_block(part, block, runs)
        canvas.draw_without_rendering()  # while the style holds: ticks are made when needed
    return canvas


def _block(section: Section, runs: Sequence[RunData]) -> _Block | None:
    shown = [panel for panel in section.panels if _has_data(panel, runs)]
    if not shown:
        return None
    if shown[0].kind == "table":
        return _Block(section, shown, [_SAMPLE] * len(runs[-1].samples(SAMPLES)))
    rows = [shown[start : start + COLUMNS] for start in range(0, len(shown), COLUMNS)]
    return _Block(section, shown, [max(_panel_height(p, runs) for p in row) for row in rows])


def _panel_height(panel: Panel, runs: Sequence[RunData]) -> float:
    if panel.kind != "bars":
        return _ROW
    count = sum(len(bars(run, metric)) for run in runs for metric in panel.metrics)
    return max(_ROW, 0.9 + _BAR * count + 0.1 * len(panel.metrics))


def _has_data(panel: Panel, runs: Sequence[RunData]) -> bool:
    if panel.kind == "table":
        return bool(runs[-1].samples(1))
    if panel.kind == "bars":
        return any(bars(run, metric) for run in runs for metric in panel.metrics)
    if panel.kind == "turns":
        return any(run.over_turns(metric) for run in runs for metric in panel.metrics)
    return any(run.curves(metric) for run in runs for metric in panel.metrics)


def _draw_head(head: SubFigure, runs: Sequence[RunData], title: str) -> None:
    head.text(0.008, 0.5, title, fontsize=14, fontweight="bold", va="center")
    handles = [
        Line2D([], [], color=colour(n), linewidth=3, label=run.label) for n, run in enumerate(runs)
    ]
    head.legend(handles=handles, loc="center right", ncols=len(runs), fontsize=10)


def _draw_block(part: SubFigure, block: _Block, runs: Sequence[RunData]) -> None:
    part.suptitle(block.section.title, x=0.008, ha="left", fontsize=11.5, fontweight="bold")
    if block.panels[0].kind == "table":
        draw_samples(part, runs[-1], runs[-1].samples(SAMPLES))
        return
    grid = part.subplots(
        len(block.heights), COLUMNS, squeeze=False, gridspec_kw={"height_ratios": block.heights}
    )
    for place, axes in enumerate(grid.flat):
        if place < len(block.panels):
            plot_panel(axes, block.panels[place], runs)
        else:
            axes.set_axis_off()


def draw_samples(
    part: SubFigure, run: RunData, samples: Sequence[tuple[Image.Image, Mapping[str, Any]]]
) -> None:
    grid = part.subplots(len(samples), 2, squeeze=False, width_ratios=[1, 11])
    for row, (picture, record) in enumerate(samples):
        left, right = grid[row]
        left.imshow(picture)
        left.set_axis_off()
        right.set_axis_off()
        for name, (place, width) in SAMPLE_COLUMNS.items():
            heading = f"{name} under {record['condition']}" if name == "response" else name
            heading = f"{heading}, step {record['step']}" if name == "response" else heading
            right.text(place, 1.0, heading, va="top", color="#777777", transform=right.transAxes)
            text = clipped(str(record[name]), width) or "(nothing)"
            right.text(place, 0.8, text, va="top", linespacing=1.25, transform=right.transAxes)


def clipped(text: str, width: int) -> str:
    """Break a text into at most LINES lines."""
    drawn = "".join(c if c.isprintable() else " " for c in text)  # no font has the others
    return "\n".join(textwrap.wrap(drawn, width, max_lines=LINES, placeholder=" ..."))
