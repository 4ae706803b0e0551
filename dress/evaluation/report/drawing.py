"""Draw a panel as SVG in a data URI."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

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
