"""Rows of the sample table: thumbnail, question, response and truth."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import SubFigure
from PIL import Image

from dress.evaluation.dashboard.run_data import RunData

# left edge of a column and its width in characters
COLUMNS = {"question": (0.0, 42), "response": (0.33, 55), "truth": (0.70, 48)}
LINES = 5


def draw_samples(
    part: SubFigure, run: RunData, samples: Sequence[tuple[Image.Image, Mapping[str, Any]]]
) -> None:
    grid = part.subplots(len(samples), 2, squeeze=False, width_ratios=[1, 11])
    for row, (picture, record) in enumerate(samples):
        left, right = grid[row]
        left.imshow(picture)
        left.set_axis_off()
        right.set_axis_off()
        for name, (place, width) in COLUMNS.items():
            heading = f"{name} under {record['condition']}" if name == "response" else name
            heading = f"{heading}, step {record['step']}" if name == "response" else heading
            right.text(place, 1.0, heading, va="top", color="#777777", transform=right.transAxes)
            text = clipped(str(record[name]), width) or "(nothing)"
            right.text(place, 0.8, text, va="top", linespacing=1.25, transform=right.transAxes)


def clipped(text: str, width: int) -> str:
    """Break a text into at most LINES lines."""
    return "\n".join(textwrap.wrap(text, width, max_lines=LINES, placeholder=" ..."))
