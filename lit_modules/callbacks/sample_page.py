"""The HTML page of a sample table: one file, no script, readable on a phone."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

COLUMNS = ("step", "image", "question", "condition", "response", "truth")
TEXTS = COLUMNS[2:]

# each picture is stored once, however often it is shown; below 45em a row becomes a card
STYLE = """
body { font: 16px/1.4 system-ui, sans-serif; margin: 1em; color: #222; background: #fff }
table { border-collapse: collapse; width: 100% }
th, td { border-top: 1px solid #ccc; padding: .4em .6em; text-align: left; vertical-align: top }
td { overflow-wrap: anywhere; white-space: pre-wrap }
.picture { width: 8em; height: 8em; background: center/contain no-repeat }
@media (max-width: 45em) {
  thead { display: none }
  tr { display: block; border-top: 3px solid #888; padding: .4em 0 }
  td { display: block; border: 0; padding: .2em 0 }
  td::before { content: attr(data-column) ": "; color: #666 }
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
    cells = "".join(
        f'<td data-column="{name}">{html.escape(str(record[name]))}</td>' for name in TEXTS
    )
    return (
        f'<tr><td data-column="step">{int(record["step"])}</td><td data-column="image">'
        f'<div class="picture p{index}" role="img" aria-label="image {index}"></div></td>'
        f"{cells}</tr>"
    )
