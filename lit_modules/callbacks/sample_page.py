"""The HTML page of a sample table: one file, no script, readable on a phone."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

COLUMNS = ("step", "image", "question", "condition", "critique", "response", "truth")
TEXTS = COLUMNS[2:]

# each picture is stored once, however often it is shown; below 45em a row becomes a card
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.2em; color: #222; background: #fff }
table { border-collapse: collapse; width: 100% }
th { position: sticky; top: 0; background: #fff; color: #666; font-weight: 600 }
th, td { border-bottom: 1px solid #ddd; padding: .6em .8em; text-align: left }
td { vertical-align: top; overflow-wrap: anywhere; white-space: pre-wrap }
.step, .condition, .critique, .truth { color: #666 }
.question { min-width: 9em }
.critique { min-width: 13em }
.condition { font-weight: 600 }
.response, .truth { min-width: 14em }
.response { background: #f3f7fd }
.picture { width: 12em; height: 9em; background: left top/contain no-repeat }
@media (max-width: 45em) {
  thead { display: none }
  tr { display: block; border-top: 3px solid #888; padding: .4em 0 }
  td { display: block; border: 0; padding: .2em .4em }
  td::before { content: attr(data-column) ": "; color: #666; font-weight: 400 }
  .image::before { content: none }
  .picture { width: 100%; height: 12em }
}
"""


def render_page(records: Iterable[Mapping[str, Any]], pictures: Sequence[bytes]) -> str:
    """Show every record, the latest step first; `image` is an index into the JPEG `pictures`."""
    # a resumed run answers some steps again: the last answer counts
    latest = {(record["step"], record["image"]): record for record in records}
    shown = [latest[key] for key in sorted(latest, key=lambda key: (-key[0], key[1]))]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Samples</title><style>{STYLE}{_picture_rules(pictures)}</style></head><body>",
            "<table><thead><tr>",
            *(f"<th>{column}</th>" for column in COLUMNS),
            "</tr></thead><tbody>",
            *(_row(record) for record in shown if record["image"] < len(pictures)),
            "</tbody></table></body></html>\n",
        ]
    )


def _picture_rules(pictures: Sequence[bytes]) -> str:
    return "\n".join(
        f".p{index} {{ background-image: url(data:image/jpeg;base64,{_base64(picture)}) }}"
        for index, picture in enumerate(pictures)
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _row(record: Mapping[str, Any]) -> str:
    index = int(record["image"])
    picture = f'<div class="picture p{index}" role="img" aria-label="image {index}"></div>'
    contents = {"step": str(int(record["step"])), "image": picture}
    contents |= {name: html.escape(str(record[name])) for name in TEXTS}
    cells = (f'<td class="{name}" data-column="{name}">{contents[name]}</td>' for name in COLUMNS)
    return f"<tr>{''.join(cells)}</tr>"
