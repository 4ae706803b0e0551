from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from dress.data.schema import from_json, to_json
from dress.data.sources.lvlm_nlf import LVLMNLFSource
from dress.data.sources.source import Part, Source
from dress.errors import InputError, Reject
from dress.types import Dialogue, Feedback, Judgement, Sample, Turn
from tests.data.coco_files import photograph
from tests.data.nlf_files import nlf_row, write_nlf


def only(root: Path, part: Part = "candidates", **options: Any) -> Sample | Reject:
    (item,) = LVLMNLFSource(root=str(root), **options).samples(part)
    return item


def judged(rating: int, critique: str, refinement: str, aspect: str = "helpfulness") -> Feedback:
    return Feedback({aspect: Judgement(rating, critique, refinement)})


def test_candidates_are_whole_dialogues_with_their_feedback(tmp_path: Path) -> None:
    write_nlf(tmp_path, [nlf_row(0)])
    sample = only(tmp_path)
    assert isinstance(sample, Sample)
    first = judged(2, "Too short.", "Say more of it.")
    second = judged(4, "Complete.", "")
    turns = (
        Turn("What is there?", "Some thing 0.", first),
        Turn("Say more of it.", "Thing 0 lies there.", second),
    )
    assert sample.id == "nlf.jsonl-candidates-000001"
    assert sample.dialogues == (Dialogue(turns),)
    assert sample.images == (photograph(0),)
    assert sample.annotations == {
        "task": "helpfulness",
        "image_id": "0.jpg",
        "captions": ["Thing 0."],
        "reference": "Thing 0 lies there.",
    }
    assert from_json(to_json(sample), sample.images, where="here") == sample


def test_the_reference_is_the_latest_of_the_best(tmp_path: Path) -> None:
    rows = [nlf_row(0)]
    turn = rows[0]["interaction"][0]
    rows[0]["interaction"] = [
        turn | {"model": model, "rating": rating}
        for model, rating in (("a", 4), ("b", 4), ("c", 3))
    ]
    write_nlf(tmp_path, rows)
    sample = only(tmp_path)
    assert isinstance(sample, Sample)
    assert sample.annotations["reference"] == "b"


@pytest.mark.parametrize(
    ("name", "aspect"),
    [
        ("LVLM_NLF/helpfulness_nlf.jsonl", "helpfulness"),
        ("LVLM_NLF/hallucination_nlf.jsonl", "honesty"),
        ("LVLM_NLF/harmlessness_nlf.jsonl", "harmlessness"),
        ("mine.jsonl", "harmlessness"),
    ],
)
def test_the_name_of_a_file_says_its_aspect(tmp_path: Path, name: str, aspect: str) -> None:
    write_nlf(tmp_path, [nlf_row(0)], name)
    sample = only(
        tmp_path,
        files=["LVLM_NLF/*_nlf.jsonl" if "/" in name else "mine.jsonl"],
        aspect="harmlessness",
    )
    assert isinstance(sample, Sample)
    assert {aspect} == {a for t in sample.dialogues[0].turns for a in t.feedback.judgements}  # type: ignore[union-attr]


def test_the_other_parts(tmp_path: Path) -> None:
    write_nlf(tmp_path, [nlf_row(0, caption=["One.", " Two. ", ""])])
    source = LVLMNLFSource(root=str(tmp_path))
    assert isinstance(source, Source)
    instructions, prompts, captions = (
        only(tmp_path, part) for part in ("instructions", "prompts", "captions")
    )
    assert isinstance(instructions, Sample)
    assert isinstance(prompts, Sample)
    assert isinstance(captions, Sample)
    assert instructions.dialogues == (Dialogue((Turn("What is there?", "Some thing 0."),)),)
    assert prompts.dialogues == (Dialogue((Turn("What is there?"),)),)
    assert [d.turns[0].model for d in captions.dialogues] == ["One.", "Two."]
    texts = list(source.texts())
    assert {"Too short.", "Complete.", "Say more of it.", "Thing 0 lies there."} <= set(texts)
    assert set(source.inputs()) == {"nlf.jsonl", "images"}


def test_a_row_without_a_caption_is_no_caption_sample(tmp_path: Path) -> None:
    write_nlf(tmp_path, [nlf_row(0, caption=None), nlf_row(1)])
    found = list(LVLMNLFSource(root=str(tmp_path)).samples("captions"))
    assert [item.id for item in found if isinstance(item, Sample)] == ["nlf.jsonl-captions-000002"]
    assert len(found) == 1


def broken(field: str, value: Any) -> dict[str, Any]:
    row = copy.deepcopy(nlf_row(0))
    row["interaction"][1][field] = value
    return row


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (broken("rating", 7), "interaction[1].rating is 7, not a whole number from 1 to 4"),
        (broken("rating", "0"), "interaction[1].rating is '0', not a whole number from 1 to 4"),
        (broken("rating", True), "interaction[1].rating is True, not a whole number from 1 to 4"),
        (broken("rating", 2.5), "interaction[1].rating is 2.5, not a whole number from 1 to 4"),
        (broken("rating", None), "interaction[1].rating is None, not a whole number from 1 to 4"),
        (broken("model", " "), "interaction[1].model is ' ', not a text"),
        (broken("user", 3), "interaction[1].user is 3, not a text"),
        (broken("critique_NLF", None), "interaction[1].'critique_NLF' is None, not a text"),
        (nlf_row(0, interaction=[]), "interaction is not a list of at least one turn"),
        (nlf_row(0, interaction=["x"]), "interaction holds something that is not an object"),
    ],
)
def test_a_malformed_field_is_a_reject_that_names_it(
    tmp_path: Path, row: dict[str, Any], fault: str
) -> None:
    path = write_nlf(tmp_path, [row])
    reject = only(tmp_path)
    assert isinstance(reject, Reject)
    assert (reject.reason, reject.where) == ("invalid row", f"{path}, line 1")
    assert reject.detail == fault


@pytest.mark.parametrize("rating", [4, "4", 4.0, "4.0"])
def test_a_whole_rating_is_read_however_it_is_written(tmp_path: Path, rating: Any) -> None:
    write_nlf(tmp_path, [broken("rating", rating)])
    sample = only(tmp_path)
    assert isinstance(sample, Sample)
    feedback = sample.dialogues[0].turns[1].feedback
    assert feedback is not None and feedback.judgements["helpfulness"].rating == 4


def test_an_absent_or_truncated_or_outside_image_is_a_reject(tmp_path: Path) -> None:
    write_nlf(tmp_path, [nlf_row(0), nlf_row(1)])
    (tmp_path / "images/0.jpg").unlink()
    data = photograph(1)
    (tmp_path / "images/1.jpg").write_bytes(data[: len(data) // 2])
    rows = list(LVLMNLFSource(root=str(tmp_path)).samples("candidates"))
    reasons = [row.reason for row in rows if isinstance(row, Reject)]
    assert reasons == ["missing image", "unreadable image"]
    write_nlf(tmp_path, [nlf_row(0)])
    (tmp_path / "nlf.jsonl").write_text(
        (tmp_path / "nlf.jsonl").read_text().replace("0.jpg", "../nlf.jsonl")
    )
    outside = only(tmp_path)
    assert isinstance(outside, Reject)
    assert outside.reason == "unsafe file name"


def test_mistakes_name_the_key_to_change(tmp_path: Path) -> None:
    def start(**options: Any) -> None:
        LVLMNLFSource(**{"root": str(tmp_path), **options}).samples("candidates")

    with pytest.raises(InputError, match=r"data\.root"):
        start(root=None)
    with pytest.raises(InputError, match="aspect is 'kindness': choose helpfulness or honesty or"):
        start(aspect="kindness")
    with pytest.raises(InputError, match=r"data\.files"):
        start()
    path = write_nlf(tmp_path, [nlf_row(0)])
    with pytest.raises(InputError, match=r"data\.images"):
        start(images="photos")
    with pytest.raises(InputError, match=r"data\.files"):
        start(files=["../*"])
    path.write_text(path.read_text() + "{\n")
    with pytest.raises(InputError, match=r"nlf\.jsonl, line 2,"):
        list(LVLMNLFSource(root=str(tmp_path)).samples("candidates"))
    path.write_text("\n")
    with pytest.raises(InputError, match="no rows"):
        start()


def test_limit_counts_in_each_file(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write_nlf(tmp_path, [nlf_row(0), nlf_row(1)], name)
    found = LVLMNLFSource(root=str(tmp_path), limit=1).samples("prompts")
    ids = [item.id for item in found if isinstance(item, Sample)]
    assert ids == ["a.jsonl-prompts-000001", "b.jsonl-prompts-000001"]
