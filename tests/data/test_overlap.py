"""Training data that shares images or questions with evaluation sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dress.data.overlap import image_key, overlaps, read_evaluation_set
from dress.data.sources.json_rows import json_rows
from dress.errors import InputError
from dress.types import Dialogue, Sample, Turn
from tests.data.coco_files import shared_data


def sample(name: str, question: str, **annotations: object) -> Sample:
    return Sample(name, (), (Dialogue((Turn(question, "It."),)),), annotations)


SAMPLES = (
    sample("a", "What is  THIS?", image_id="000000000007.jpg"),
    sample("b", "What is that?", image_ids=["folder/COCO_train2014_000000000008.jpg"]),
    sample("c", "What else?", image_id=9, file_name="nine.jpg"),
    sample("d", "Nothing shared?"),
)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("COCO_val2014_000000310196.jpg", "000000310196"),
        ("000000310196.jpg", "000000310196"),
        (310196, "000000310196"),
        (310196.0, "000000310196"),
        ("310196", "000000310196"),
        ("a/b/picture.one.png", "picture.one"),
    ],
)
def test_coco_names_agree(name: str | float, key: str) -> None:
    assert image_key(name) == key


def test_what_is_shared_is_counted_by_group(tmp_path: Path) -> None:
    rows = [
        {"image": "COCO_val2014_000000000007.jpg", "text": "what is this?"},
        {"image_id": "000000000008.jpg", "query": "What else?"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "b.json").write_text(json.dumps(rows[:1]))
    (tmp_path / "c.txt").write_text("nine.jpg\n\nWhat is that?\n")
    (tmp_path / "d.txt").write_text("other.jpg\n")
    sets = [read_evaluation_set(path) for path in sorted(tmp_path.iterdir())]
    found = {o.evaluation.name: (dict(o.shared), o.first) for o in overlaps(SAMPLES, sets)}
    assert found == {
        "a.jsonl": ({"images": 2, "questions": 2, "groups": 3}, "a"),
        "b.json": ({"images": 1, "questions": 1, "groups": 1}, "a"),
        "c.txt": ({"images": 1, "questions": 1, "groups": 2}, "b"),
    }


def test_a_set_without_anything_to_compare_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shards\.evaluation_sets"):
        read_evaluation_set(tmp_path / "absent.txt")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"label": "yes"}\n')
    with pytest.raises(InputError, match="no images or questions"):
        read_evaluation_set(path)


def test_vlsafe_shares_queries_but_no_images() -> None:
    """142 queries stand in both files, in 196 of the rows to examine; 3 more differ in case."""
    rows = list(json_rows(shared_data("vlsafe", "harmlessness_examine.jsonl")))
    samples = [sample(str(n), r["query"], image_id=r["image_id"]) for n, r in rows]
    alignment = read_evaluation_set(shared_data("vlsafe", "harmlessnss_alignment.jsonl"))
    (overlap,) = overlaps(samples, [alignment])
    assert overlap.shared == {"images": 0, "questions": 199, "groups": 199}


def test_a_line_of_image_and_question(tmp_path: Path) -> None:
    path = tmp_path / "set.txt"
    path.write_text("7.jpg\tWhat is it?\tyes\nWhy?\n8.jpg\n")
    found = read_evaluation_set(path)
    assert found.images >= {"7", "8"} and found.questions >= {"what is it?", "why?"}
    real = read_evaluation_set(shared_data("mme", "existence.txt"))
    assert len(real.images) == 30 and len(real.questions) > 20  # two questions to an image
