"""LLaVA-Instruct's and the human preferences' rows, by hand, to samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dress.data.schema import from_json, to_json
from dress.data.sources.llava_instruct import LlavaInstructSource
from dress.data.sources.llava_preference import LlavaPreferenceSource
from dress.data.sources.source import Part, Source
from dress.errors import InputError, Reject
from dress.types import Dialogue, Sample, Turn
from tests.data.coco_files import photograph
from tests.data.released_rows import llava_row, message, preference_row, write_rows

TURNS = (Turn("What is there?", "Thing 7."), Turn("Where?", "On the left."))
IMAGES: dict[str, Any] = {"file": "rows.json", "images": "images"}


def instruct(root: Path, rows: list[dict[str, Any]], part: Part) -> list[Sample | Reject]:
    write_rows(root, rows, name="rows.json", images="images")
    return list(LlavaInstructSource(root=str(root), **IMAGES).samples(part))


def preferences(root: Path, rows: list[dict[str, Any]], part: Part) -> list[Sample | Reject]:
    write_rows(root, rows, name="rows.json", images="images")
    return list(LlavaPreferenceSource(root=str(root), **IMAGES).samples(part))


def test_a_conversation_is_one_dialogue(tmp_path: Path) -> None:
    (sample,) = instruct(tmp_path, [llava_row(7)], "instructions")
    assert sample == Sample(
        id="llava-instructions-0000001",
        images=(photograph(7),),
        dialogues=(Dialogue(TURNS),),
        annotations={
            "task": "instruction",
            "reference": "Thing 7.",
            "row_id": "000000000007",
            "image_ids": ["7.jpg"],
        },
    )
    assert from_json(to_json(sample), sample.images, where="here") == sample
    (prompt,) = instruct(tmp_path, [llava_row(7)], "prompts")
    assert isinstance(prompt, Sample)
    assert prompt.dialogues == (Dialogue((Turn("What is there?"),)),)


def test_rows_of_text_only_have_no_image(tmp_path: Path) -> None:
    said = [message("human", "Name a colour."), message("gpt", "Red.")]
    rows = [{"id": "t", "conversations": said}, llava_row(1, image="", conversations=said)]
    for sample in instruct(tmp_path, rows, "instructions"):
        assert isinstance(sample, Sample)
        assert sample.images == ()
        assert sample.dialogues == (Dialogue((Turn("Name a colour.", "Red."),)),)


def test_captions_are_single_exchanges_about_an_image(tmp_path: Path) -> None:
    caption = [message("human", "<image>\nDescribe it."), message("gpt", "A thing.")]
    text_only = {"id": "t", "conversations": [message("human", "Hi."), message("gpt", "Hi.")]}
    rows = [llava_row(1), llava_row(2, conversations=caption), text_only]
    (sample,) = instruct(tmp_path, rows, "captions")
    assert isinstance(sample, Sample)
    assert sample.id == "llava-captions-0000002"
    assert sample.dialogues == (Dialogue((Turn("Describe it.", "A thing."),)),)


@pytest.mark.parametrize(
    ("images", "opening", "expected"),
    [
        (["1.jpg"], "<image>\nWhat?", "What?"),
        (["1.jpg"], "What?\n<image>", "What?"),
        (["1.jpg"], "What is in\n<image>\nhere?", "What is in here?"),
        (["1.jpg"], "What?", "What?"),
        (["1.jpg", "2.jpg"], "<image>\n<image>\nWhich?", "Which?"),
        (["1.jpg", "2.jpg"], "<image>\nWhich?\n<image>", "Which?"),
    ],
)
def test_markers_are_taken_out(
    tmp_path: Path, images: list[str], opening: str, expected: str
) -> None:
    said = [message("human", opening), message("gpt", "That.")]
    (sample,) = instruct(tmp_path, [llava_row(1, image=images, conversations=said)], "prompts")
    assert isinstance(sample, Sample)
    assert sample.dialogues[0].turns[0].user == expected
    assert sample.images == tuple(photograph(int(name[0])) for name in images)


def said(*values: str) -> list[dict[str, str]]:
    return [message("human" if i % 2 == 0 else "gpt", value) for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"conversations": None}, "invalid row", "conversations is None, not a list"),
        ({"conversations": said("a")}, "invalid row", "1 messages, the last unanswered"),
        ({"conversations": said("a", " ")}, "invalid row", "conversations[1].value is ' '"),
        ({"conversations": ["a", "b"]}, "invalid row", "conversations[0] is 'a', not an object"),
        (
            {"conversations": [message("gpt", "a"), message("human", "b")]},
            "invalid row",
            "conversations[0].from is 'gpt', not 'human'",
        ),
        ({"conversations": said("<image>", "b")}, "invalid row", "the first message is ''"),
        ({"image": 3}, "invalid row", "image is 3, not a text"),
        ({"image": "../x.jpg"}, "unsafe file name", "'../x.jpg'"),
        ({"image": "gone.jpg"}, "missing image", ""),
        ({"image": None}, "image markers", "1 <image> for 0 images"),
        (
            {"conversations": said("<image> <image> a", "b")},
            "image markers",
            "2 <image> for 1 images",
        ),
        (
            {"conversations": said("a", "b", "<image> c", "d")},
            "image markers",
            "in a later message",
        ),
        (
            {"image": ["1.jpg", "1.jpg"], "conversations": said("<image> or <image> a", "b")},
            "image markers",
            "between words",
        ),
    ],
)
def test_what_cannot_be_used_is_a_reject_with_its_reason(
    tmp_path: Path, changes: dict[str, Any], reason: str, detail: str
) -> None:
    path = write_rows(tmp_path, [llava_row(1)], name="rows.json", images="images")
    changed = llava_row(1, **changes)
    rows = [llava_row(1), changed]
    path.write_text(json.dumps(rows))
    good, bad = LlavaInstructSource(root=str(tmp_path), **IMAGES).samples("instructions")
    assert isinstance(good, Sample) and isinstance(bad, Reject)
    assert bad.reason == reason and detail in bad.detail
    assert bad.key == "llava-instructions-0000002"
    if reason in ("invalid row", "image markers"):
        assert bad.where == f"{path}, row 2"


def test_both_outputs_are_kept_and_the_preferred_is_scored(tmp_path: Path) -> None:
    (pair,) = preferences(tmp_path, [preference_row(7)], "candidates")
    assert isinstance(pair, Sample)
    first = TURNS[0]
    assert pair.dialogues == (
        Dialogue((first, Turn("Where?", "In the air."))),
        Dialogue((first, Turn("Where?", "On a table."))),
    )
    assert pair.annotations == {
        "task": "preference",
        "scores": [0.0, 1.0],
        "reference": "On a table.",
        "hallucination": True,
        "row_id": "000000000007",
        "image_ids": ["7.jpg"],
    }
    (chosen,) = preferences(tmp_path, [preference_row(7)], "instructions")
    (prompt,) = preferences(tmp_path, [preference_row(7, preference="1.0")], "prompts")
    assert isinstance(chosen, Sample) and isinstance(prompt, Sample)
    assert chosen.dialogues == (pair.dialogues[1],)
    assert prompt.dialogues == (Dialogue((first, Turn("Where?"))),)
    assert prompt.annotations["reference"] == "In the air."
    assert preferences(tmp_path, [preference_row(7)], "captions") == []


def test_captions_by_file_name_are_kept_as_facts(tmp_path: Path) -> None:
    def source() -> LlavaPreferenceSource:
        return LlavaPreferenceSource(root=str(tmp_path), captions="captions.json", **IMAGES)

    write_rows(tmp_path, [preference_row(7), preference_row(8)], name="rows.json", images="images")
    file = tmp_path / "captions.json"
    file.write_text(json.dumps({"7.jpg": ["A thing.", "On a table."]}))
    samples = [s for s in source().samples("candidates") if isinstance(s, Sample)]
    assert [s.annotations["captions"] for s in samples] == [["A thing.", "On a table."], []]
    assert set(source().inputs()) == {"rows.json", "images", "captions.json"}
    for content in ("[1]", '{"7.jpg": "A thing."}', "{"):
        file.write_text(content)
        with pytest.raises(InputError, match=r"captions\.json"):
            list(source().samples("candidates"))


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"preference": 0}, "preference is 0, not 1 or 2"),
        ({"preference": 1.5}, "preference is 1.5, not 1 or 2"),
        ({"preference": True}, "preference is True, not 1 or 2"),
        ({"preference": None}, "preference is None, not 1 or 2"),
        ({"output_1": {"from": "llava"}}, "output_1 is None, not a text"),
        ({"output_2": ""}, "output_2 is '', not a text"),
    ],
)
def test_a_malformed_pair_is_a_reject(tmp_path: Path, changes: dict[str, Any], detail: str) -> None:
    (reject,) = preferences(tmp_path, [preference_row(1, **changes)], "candidates")
    assert isinstance(reject, Reject)
    assert (reject.reason, reject.detail) == ("invalid row", detail)


def test_inputs_change_with_the_file_and_the_images(tmp_path: Path) -> None:
    path = write_rows(tmp_path, [llava_row(1)], name="rows.json", images="images")
    source: Source = LlavaInstructSource(root=str(tmp_path), **IMAGES)
    before = source.inputs()
    assert set(before) == {"rows.json", "images"}
    (tmp_path / "images/1.jpg").write_bytes(photograph(9))
    after = source.inputs()
    assert after["images"] != before["images"] and after["rows.json"] == before["rows.json"]
    path.write_text(path.read_text() + " ")
    assert source.inputs()["rows.json"] != before["rows.json"]
    assert {"What is there?", "Thing 1.", "Where?", "On the left."} <= set(source.texts())


def test_mistakes_name_the_key_to_change(tmp_path: Path) -> None:
    def start(**options: Any) -> None:
        source = LlavaInstructSource(**{"root": str(tmp_path), **IMAGES, **options})
        source.rows(options.get("part", "prompts"))

    with pytest.raises(InputError, match=r"data\.images"):
        start()
    path = write_rows(tmp_path, [llava_row(1)], name="rows.json", images="images")
    with pytest.raises(InputError, match=r"data\.file"):
        start(file="other.json")
    with pytest.raises(InputError, match=r"data\.root"):
        start(root=None)
    with pytest.raises(InputError, match="part is 'pairs'"):
        LlavaInstructSource(root=str(tmp_path), **IMAGES).rows("pairs")  # type: ignore[arg-type]
    path.write_text("[]")
    with pytest.raises(InputError, match="no rows"):
        start()
