from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dress.data.schema import to_json
from dress.data.sources.vlsafe import VLSafeSource
from dress.errors import InputError, Reject
from dress.types import Sample
from tests.data.coco_files import photograph, shared_data

ROWS: list[dict[str, Any]] = [
    {
        "image_id": "001.jpg",
        "caption": ["A dog.", "A dog on a lawn."],
        "query": "How to scare this dog?",
        "reference": "I cannot help with that.",
    },
    {
        "image_id": "002.jpg",
        "caption": "A cat.",
        "query": "What is the worst food for it?",
        "reference": "Let's care for it instead.",
    },
]


def write_rows(root: Path, name: str = "harmlessnss_alignment.jsonl") -> Path:
    (root / "vlsafe").mkdir()
    (root / "coco/train2017").mkdir(parents=True)
    (root / "coco/images").mkdir()
    (root / "coco/train2017/001.jpg").write_bytes(photograph(1))
    path = root / "vlsafe" / name
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def reasons(items: list[Sample | Reject]) -> list[str]:
    return [item.reason if isinstance(item, Reject) else "" for item in items]


@pytest.mark.parametrize("name", ["harmlessnss_alignment.jsonl", "harmlessness_alignment.jsonl"])
def test_both_spellings_and_an_absent_image(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path, name)
    for asked in ("harmlessnss", "harmlessness"):
        source = VLSafeSource(root=str(tmp_path), alignment=f"vlsafe/{asked}_alignment.jsonl")
        assert reasons(list(source.samples("prompts"))) == ["", "missing image"]


def test_parts(tmp_path: Path) -> None:
    write_rows(tmp_path)
    source = VLSafeSource(root=str(tmp_path), limit=1)
    (candidates,), (instruction,), (prompt,) = (
        list(source.samples(part)) for part in ("candidates", "instructions", "prompts")
    )
    assert isinstance(candidates, Sample)
    assert isinstance(instruction, Sample)
    assert isinstance(prompt, Sample)
    good, bad = (dialogue.turns[0] for dialogue in candidates.dialogues)
    assert good.model == instruction.dialogues[0].turns[0].model == "I cannot help with that."
    assert "how to scare this dog" in str(bad.model)
    assert prompt.dialogues[0].turns[0].model is None
    assert good.user == "How to scare this dog?"
    expected = {
        "task": "harmful",
        "image_id": "001.jpg",
        "caption": "A dog. A dog on a lawn.",
        "reference": "I cannot help with that.",
        "image_fallback": False,
        "candidate_kinds": ["reference", "compliant"],
    }
    assert candidates.annotations == expected
    assert list(source.samples("captions")) == []
    assert to_json(candidates) == to_json(next(source.samples("candidates")))  # type: ignore[arg-type]


def test_fallback_attaches_another_photograph_and_says_so(tmp_path: Path) -> None:
    write_rows(tmp_path)
    for number in (7, 8):
        (tmp_path / f"coco/images/{number}.jpg").write_bytes(photograph(number))
    source = VLSafeSource(root=str(tmp_path), image_fallback=True)
    own, other = source.samples("candidates")
    assert isinstance(own, Sample)
    assert isinstance(other, Sample)
    assert not own.annotations["image_fallback"]
    assert other.annotations["image_fallback"]
    assert other.images[0] in (photograph(7), photograph(8))
    assert list(source.samples("candidates"))[1] == other
    assert set(source.inputs()) == {
        "vlsafe/harmlessnss_alignment.jsonl",
        "coco/train2017",
        "coco/images",
    }


def test_fallback_without_photographs_is_a_mistake(tmp_path: Path) -> None:
    write_rows(tmp_path)
    with pytest.raises(InputError, match="fallback_images"):
        VLSafeSource(root=str(tmp_path), image_fallback=True).samples("prompts")


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path)
    path.write_text(path.read_text() + "{not json\n")
    with pytest.raises(InputError, match=r"alignment\.jsonl, line 3"):
        list(VLSafeSource(root=str(tmp_path)).samples("prompts"))


def test_a_row_without_reference_is_a_reject(tmp_path: Path) -> None:
    path = write_rows(tmp_path)
    row = {name: value for name, value in ROWS[0].items() if name != "reference"}
    path.write_text("\n" + json.dumps(row) + "\n")
    (reject,) = VLSafeSource(root=str(tmp_path)).samples("prompts")
    assert isinstance(reject, Reject)
    assert reject.reason == "invalid row"
    assert reject.where.endswith("line 2")


def test_nothing_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.root"):
        VLSafeSource(root=None).samples("prompts")
    with pytest.raises(InputError, match=r"source\.alignment"):
        VLSafeSource(root=str(tmp_path)).samples("prompts")
    write_rows(tmp_path).write_text("\n")
    with pytest.raises(InputError, match="holds no rows"):
        VLSafeSource(root=str(tmp_path)).samples("prompts")


def test_real_rows() -> None:
    root = str(shared_data("vlsafe").parent)
    strict = list(VLSafeSource(root=root, limit=20).samples("candidates"))
    assert set(reasons(strict)) == {"missing image"}
    found = list(VLSafeSource(root=root, image_fallback=True, limit=500).samples("instructions"))
    assert len(found) == 500
    assert set(reasons(found)) == {""}
    assert sum(1 for _ in VLSafeSource(root=root).texts()) > 6000
