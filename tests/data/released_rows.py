"""Hand-made rows in the released formats of LLaVA-Instruct, VLFeedback and human preferences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.data.coco_files import photograph

RATED = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")


def message(role: str, value: str) -> dict[str, str]:
    return {"from": role, "value": value}


def llava_row(number: int, **changes: Any) -> dict[str, Any]:
    """Two exchanges about image `number`."""
    row = {
        "id": f"{number:012d}",
        "image": f"{number}.jpg",
        "conversations": [
            message("human", "What is there?\n<image>"),
            message("gpt", f"Thing {number}."),
            message("human", "Where?"),
            message("gpt", "On the left."),
        ],
    }
    return row | changes


def prompt_row(number: int, **changes: Any) -> dict[str, Any]:
    """A question of LLaVA-RLHF's PPO prompts."""
    return llava_row(number) | {"caption_type": 1, "length_bonus": 1.0} | changes


def preference_row(number: int, **changes: Any) -> dict[str, Any]:
    """The second output preferred, after one earlier exchange."""
    row = llava_row(number) | {
        "output_1": message("llava", "In the air."),
        "output_2": message("llava", "On a table."),
        "preference": 2,
        "hallucination": True,
    }
    return row | changes


def completion(model: str, response: str, ratings: Sequence[Any]) -> dict[str, Any]:
    """`ratings` in the order of RATED."""
    judged = {
        name: {"Rating": rating, "Rationale": f"{name} of {model}."}
        for name, rating in zip(RATED, ratings, strict=True)
    }
    return {"model": model, "response": response, "annotations": judged}


def vlfeedback_row(number: int, **changes: Any) -> dict[str, Any]:
    completions = [
        completion("a", "A poor one.", ["1", "5", "2"]),
        completion("b", "A good one.", ["5", "5", "4"]),
        completion("c", "Unsure.", ["3", "N/A", "3"]),
        completion("d", "Not judged.", ["N/A", None, "nan"]),
    ]
    row = {
        "id": f"LRV-{number}",
        "prompt": "What is there?",
        "img_path": f"{number}.jpg",
        "models": ["a", "b", "c", "d"],
        "completions": completions,
    }
    return row | changes


def write_rows(
    root: Path, rows: Sequence[Mapping[str, Any]], *, name: str, images: str, lines: bool = False
) -> Path:
    """Write the rows, and every image that one of them names; return the file."""
    (root / images).mkdir(parents=True, exist_ok=True)
    for row in rows:
        named = row.get("image") or row.get("img_path") or []
        for image in named if isinstance(named, list) else [named]:
            (root / images / image).write_bytes(photograph(int(Path(image).stem)))
    text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(list(rows), indent=1)
    (root / name).write_text(text)
    return root / name
