"""A folder of one's own data: images and dialogues with feedback in LVLM_NLF's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.data.coco_files import photograph


def nlf_row(number: int, **changes: Any) -> dict[str, Any]:
    """Two turns about image `number`: rated 2, then 4."""
    turns = [
        {
            "user": "What is there?",
            "model": f"Some thing {number}.",
            "rating": "2",
            "critique NLF": "Too short.",
        },
        {
            "user": "Say more of it.",
            "model": f"Thing {number} lies there.",
            "rating": 4,
            "critique_NLF": "Complete.",
        },
    ]
    row = {"image_id": f"{number}.jpg", "caption": f"Thing {number}.", "interaction": turns}
    return row | changes


def write_nlf(root: Path, rows: list[dict[str, Any]], name: str = "nlf.jsonl") -> Path:
    """Write the rows, and an image for each that names one; return the file."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        (root / "images" / str(row["image_id"])).write_bytes(photograph(number))
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
