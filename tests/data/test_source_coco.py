from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dress.data.object_words import load_synonyms
from dress.data.schema import to_json
from dress.data.sources.coco import CocoSource
from dress.data.sources.source import Source
from dress.errors import InputError, Reject
from dress.types import Sample
from tests.data.coco_files import shared_data, write_coco, write_json


def samples(source: CocoSource, part: Any) -> list[Sample]:
    found = list(source.samples(part))
    assert all(isinstance(sample, Sample) for sample in found), found
    return [sample for sample in found if isinstance(sample, Sample)]


def answers(sample: Sample) -> list[str | None]:
    return [dialogue.turns[0].model for dialogue in sample.dialogues]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path)


def test_captions_are_one_group_per_image(root: Path) -> None:
    source = CocoSource(root=str(root))
    assert isinstance(source, Source)
    first, second, _ = samples(source, "captions")
    assert answers(first) == ["A dog sits beside a bicycle.", "A puppy and a bike."]
    assert answers(second) == ["A cat on a mat."]
    assert len({dialogue.turns[0].user for dialogue in first.dialogues}) == 1
    assert first.annotations["objects"] == ["dog", "bicycle"]
    assert first.images[0] == (root / "coco/images/001.jpg").read_bytes()


def test_instructions_are_true_and_balanced(root: Path) -> None:
    found = samples(CocoSource(root=str(root)), "instructions")
    asked = [s for s in found if s.annotations["task"] == "existence"]
    truths = [s.annotations["answer"] for s in asked]
    assert truths.count("yes") == truths.count("no") == 3
    for sample in asked:
        there = sample.annotations["about"] in sample.annotations["objects"]
        assert sample.annotations["answer"] == ("yes" if there else "no")
        assert str(answers(sample)[0]).startswith("Yes" if there else "No")
    described = [s for s in found if s.annotations["task"] == "describe"]
    assert len(described) == 3
    assert all(answers(s) == [s.annotations["reference"]] for s in found)


def test_objects_that_only_a_caption_names_are_not_asked_for(tmp_path: Path) -> None:
    root = write_coco(tmp_path, {1: (["A dog and a cat with a bike."], ["dog"])})
    for seed in range(8):
        found = samples(CocoSource(root=str(root), seed=seed), "instructions")
        absent = [s for s in found if s.annotations.get("answer") == "no"]
        assert [s.annotations["about"] for s in absent] == ["scissors"]
        assert answers(absent[0]) == ["No, there are no scissors in the picture."]


def test_prompts_wait_for_a_model(root: Path) -> None:
    found = samples(CocoSource(root=str(root)), "prompts")
    assert len(found) == 9
    assert all(answers(sample) == [None] for sample in found)


def test_candidates_are_true_added_and_other(root: Path) -> None:
    table = load_synonyms()
    for sample in samples(CocoSource(root=str(root), candidates=4), "candidates"):
        assert sample.annotations["candidate_kinds"] == ["true", "added", "other", "true"]
        true, added, other, _ = (str(answer) for answer in answers(sample))
        present = table.present(sample.annotations["objects"], sample.annotations["captions"])
        assert table.named(true) <= present
        assert len(table.named(added) - present) == 1
        assert other.rstrip(".").lower() not in str(sample.annotations["captions"]).lower()
        assert table.named(other) - present


def test_a_lone_photograph_has_no_other_caption(tmp_path: Path) -> None:
    root = write_coco(tmp_path, {1: (["A dog."], ["dog"])})
    (sample,) = samples(CocoSource(root=str(root)), "candidates")
    assert sample.annotations["candidate_kinds"] == ["true", "added", "true"]


def test_same_seed_same_samples_and_another_seed_others(root: Path) -> None:
    def everything(seed: int) -> list[Any]:
        source = CocoSource(root=str(root), seed=seed)
        parts: tuple[Any, ...] = ("captions", "instructions", "prompts", "candidates")
        return [to_json(sample) for part in parts for sample in samples(source, part)]

    assert everything(0) == everything(0)
    assert everything(0) != everything(1)


def test_inputs_follow_the_bytes_of_the_photographs(root: Path) -> None:
    before = CocoSource(root=str(root)).inputs()
    assert set(before) == {"coco/captions.json", "coco/instances.json", "coco/images"}
    path = root / "coco/images/002.jpg"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    after = CocoSource(root=str(root)).inputs()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"coco/images"}


def test_limit_keeps_the_first(root: Path) -> None:
    found = samples(CocoSource(root=str(root), limit=2), "captions")
    assert [sample.annotations["image_id"] for sample in found] == [1, 2]


@pytest.mark.parametrize("root", [None, "/no/such/folder"])
def test_missing_root_names_data_root(root: str | None) -> None:
    with pytest.raises(InputError, match=r"data\.root"):
        CocoSource(root=root).samples("captions")


BROKEN: list[tuple[str, str, str]] = [
    ("captions.json", '{"images": [\n{"id": 1,}]}', r"captions\.json.*line 2, column"),
    ("captions.json", "[]", r"captions\.json.*object"),
    ("captions.json", '{"images": 3, "annotations": []}', r"images is not a list"),
    ("captions.json", '{"images": [], "annotations": []}', r"lists no images"),
    ("captions.json", '{"images": [{"id": 1}], "annotations": []}', r"images\[0\]\.file_name"),
    ("captions.json", '{"images": [{"id": 9, "file_name": "x"}], "annotations": []}', r"image 9"),
    ("instances.json", '{"annotations": [], "images": []}', r"categories is not a list"),
]


@pytest.mark.parametrize(("name", "text", "message"), BROKEN)
def test_a_broken_file_is_named(root: Path, name: str, text: str, message: str) -> None:
    (root / "coco" / name).write_text(text)
    with pytest.raises(InputError, match=message) as error:
        CocoSource(root=str(root)).samples("captions")
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_an_absent_file_is_named(root: Path) -> None:
    (root / "coco/instances.json").unlink()
    with pytest.raises(InputError, match=r"instances\.json cannot be read"):
        CocoSource(root=str(root)).samples("captions")


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    write_json(path, data)


@pytest.mark.parametrize("write", [str, float, lambda n: f"{n}.0", lambda n: f"{n:012d}"])
@pytest.mark.parametrize("name", ["captions.json", "instances.json"])
@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
def test_ids_are_numbers_however_they_are_written(
    root: Path, name: str, section: str, write: Callable[[int], Any]
) -> None:
    def change(data: dict[str, Any]) -> None:
        for record in data.get(section, []):
            record |= {key: write(value) for key, value in record.items() if key.endswith("id")}

    expected = [s.annotations for s in samples(CocoSource(root=str(root)), "captions")]
    rewrite(root / "coco" / name, change)
    assert [s.annotations for s in samples(CocoSource(root=str(root)), "captions")] == expected


def test_ids_may_be_words(root: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        for record in data["images"]:
            record["id"] = f"photo {record['id']}"
        for record in data["annotations"]:
            record["image_id"] = f"photo {record['image_id']}"

    for name in ("captions.json", "instances.json"):
        rewrite(root / "coco" / name, change)
    first, *_ = samples(CocoSource(root=str(root)), "captions")
    assert first.annotations["image_id"] == "photo 1"
    assert first.annotations["objects"] == ["dog", "bicycle"]


@pytest.mark.parametrize("name", ["captions.json", "instances.json"])
@pytest.mark.parametrize("value", [9, "9", "photo 1", 1.5, True, None, ""])
def test_an_annotation_of_an_image_that_is_not_listed_is_named(
    root: Path, name: str, value: Any
) -> None:
    rewrite(root / "coco" / name, lambda data: data["annotations"][1].update(image_id=value))
    with pytest.raises(InputError) as error:
        CocoSource(root=str(root)).samples("captions")
    fault = f"{name}: annotations[1].image_id is {value!r}, which no image of the file has as its"
    assert fault in str(error.value)


@pytest.mark.parametrize(
    ("name", "section"),
    [("captions.json", "images"), ("instances.json", "images"), ("instances.json", "categories")],
)
def test_an_id_twice_is_named(root: Path, name: str, section: str) -> None:
    rewrite(
        root / "coco" / name, lambda data: data[section].append({**data[section][1], "id": "1"})
    )
    with pytest.raises(InputError, match=rf"{name} lists the id 1 twice in {section}"):
        CocoSource(root=str(root)).samples("captions")


def test_an_unknown_category_is_named(root: Path) -> None:
    rewrite(
        root / "coco/instances.json", lambda data: data["annotations"][1].update(category_id=77)
    )
    with pytest.raises(InputError, match=r"annotations\[1\]\.category_id is 77"):
        CocoSource(root=str(root)).samples("captions")


def test_a_bad_photograph_is_one_reject(root: Path) -> None:
    path = root / "coco/images/002.jpg"
    path.write_bytes(path.read_bytes()[:400])
    found = list(CocoSource(root=str(root)).samples("candidates"))
    assert [isinstance(item, Sample) for item in found] == [True, False, True]
    assert isinstance(found[1], Reject)
    assert found[1].reason == "unreadable image"
    assert "002.jpg" in found[1].where


def test_a_file_name_cannot_leave_the_folder(root: Path) -> None:
    path = root / "coco/captions.json"
    path.write_text(path.read_text().replace("002.jpg", "../../002.jpg"))
    rejects = [
        item
        for item in CocoSource(root=str(root)).samples("prompts")
        if not isinstance(item, Sample)
    ]
    assert [reject.reason for reject in rejects] == ["unsafe file name"]


def test_an_image_without_caption_is_a_reject(tmp_path: Path) -> None:
    root = write_coco(tmp_path, {1: (["A dog."], ["dog"]), 2: ([" "], ["cat"])})
    found = list(CocoSource(root=str(root)).samples("captions"))
    assert [getattr(item, "reason", "") for item in found] == ["", "no caption"]


def test_real_photographs() -> None:
    source = CocoSource(root=str(shared_data("coco").parent))
    captions = samples(source, "captions")
    assert len(captions) == 72
    assert sum(len(sample.dialogues) for sample in captions) == 360
    assert len(samples(source, "instructions")) == 72 * 3
    assert len({sample.id for sample in samples(source, "prompts")}) == 72 * 3
    assert sum(1 for _ in source.texts()) > 360
