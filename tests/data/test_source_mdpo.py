"""mDPO's pairs, the real ones and some by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dress.data.sources.mdpo import MdpoSource
from dress.data.sources.source import Part
from dress.errors import Reject
from dress.types import Dialogue, Sample, Turn
from tests.data.coco_files import photograph, shared_data, write_json

QUESTION = "What is there?"
ROW = {
    "img_path": "images/1.jpg",
    "prompt": f"A chat. USER: <image>\n{QUESTION} ASSISTANT:",
    "chosen": "A thing.",
    "rejected": "Nothing.",
}


def read(root: Path, part: Part, *rows: dict[str, Any]) -> list[Sample | Reject]:
    (root / "images").mkdir()
    for row in rows:
        (root / row["img_path"]).write_bytes(photograph(1))
    write_json(root / "rows.json", rows)
    return list(MdpoSource(root=str(root), file="rows.json", images=".").samples(part))


@pytest.mark.parametrize(
    ("part", "responses"),
    [
        ("candidates", ["A thing.", "Nothing."]),
        ("instructions", ["A thing."]),
        ("prompts", [None]),
    ],
)
def test_a_pair(tmp_path: Path, part: Part, responses: list[str | None]) -> None:
    (sample,) = read(tmp_path, part, ROW)
    assert isinstance(sample, Sample)
    assert sample.dialogues == tuple(Dialogue((Turn(QUESTION, text),)) for text in responses)
    assert sample.images == (photograph(1),) and sample.annotations["reference"] == "A thing."
    assert sample.annotations.get("scores") == ([1.0, 0.0] if part == "candidates" else None)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"chosen": ""}, "chosen is ''"),
        ({"rejected": None}, "rejected is None"),
        ({"prompt": QUESTION}, "prompt is not one question"),
        ({"prompt": "USER: <image> a ASSISTANT: b USER: c ASSISTANT:"}, "not one question"),
        ({"prompt": "USER: <image> a ASSISTANT: b"}, "prompt is not one question"),
        ({"prompt": "USER: <image> ASSISTANT:"}, "the first message is ''"),
        ({"prompt": "USER: <image><image> a ASSISTANT:"}, "2 <image> for 1 images"),
    ],
)
def test_a_malformed_pair_is_a_reject(tmp_path: Path, changes: dict[str, Any], detail: str) -> None:
    (reject,) = read(tmp_path, "candidates", ROW | changes)
    assert isinstance(reject, Reject) and detail in reject.detail
    assert reject.where.endswith("rows.json, row 1")


def test_the_real_rows(tmp_path: Path) -> None:
    rows = json.loads(shared_data("vlfeedback", "mdpo_sample.json").read_text())
    samples = read(tmp_path, "candidates", *rows)
    for sample, row in zip(samples, rows, strict=True):
        assert isinstance(sample, Sample)
        assert sample.annotations["image_ids"] == [row["img_path"]]
        assert [d.turns[0].model for d in sample.dialogues] == [row["chosen"], row["rejected"]]
        question = sample.dialogues[0].turns[0].user
        assert question.endswith("?") and f"USER: <image>\n{question} ASSISTANT:" in row["prompt"]
