"""VLFeedback's rows, by hand, to samples with feedback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dress.data.schema import from_json, to_json
from dress.data.sources.source import Part
from dress.data.sources.vlfeedback import VLFeedbackSource
from dress.errors import InputError, Reject
from dress.types import Dialogue, Feedback, Judgement, Sample, Turn
from tests.data.coco_files import photograph
from tests.data.released_rows import completion, vlfeedback_row, write_rows


def only(root: Path, row: dict[str, Any], part: Part = "candidates") -> Sample | Reject:
    write_rows(root, [row], name="vlfeedback_80k.jsonl", images="merged_images", lines=True)
    (item,) = VLFeedbackSource(root=str(root)).samples(part)
    return item


def judged(model: str, helpful: int | None, honest: int | None, harmless: int | None) -> Feedback:
    names = ("Helpfulness", "Visual Faithfulness", "Ethical Considerations")
    aspects = ("helpfulness", "honesty", "harmlessness")
    ratings = zip(names, aspects, (helpful, honest, harmless), strict=True)
    return Feedback({a: Judgement(r, f"{name} of {model}.") for name, a, r in ratings if r})


def test_rated_responses_are_candidates_with_feedback(tmp_path: Path) -> None:
    sample = only(tmp_path, vlfeedback_row(3))
    assert isinstance(sample, Sample)
    # 1..5 become 1, 2, 2, 3, 4; what is no number is not judged
    assert sample.dialogues == (
        Dialogue((Turn("What is there?", "A poor one.", judged("a", 1, 2, 4)),)),
        Dialogue((Turn("What is there?", "A good one.", judged("b", 4, 3, 4)),)),
        Dialogue((Turn("What is there?", "Unsure.", judged("c", 2, 2, None)),)),
    )
    assert sample.images == (photograph(3),)
    assert sample.annotations == {
        "task": "LRV",
        "reference": "A good one.",
        "models": ["a", "b", "c"],
        "ratings": [
            {"Helpfulness": 1, "Visual Faithfulness": 2, "Ethical Considerations": 5},
            {"Helpfulness": 5, "Visual Faithfulness": 4, "Ethical Considerations": 5},
            {"Helpfulness": 3, "Visual Faithfulness": 3, "Ethical Considerations": None},
        ],
        "scores": [8 / 3, 14 / 3, None],
        "left_out": 1,
        "row_id": "LRV-3",
        "image_ids": ["3.jpg"],
    }
    assert from_json(to_json(sample), sample.images, where="here") == sample


def test_the_best_rated_is_the_instruction(tmp_path: Path) -> None:
    sample = only(tmp_path, vlfeedback_row(3), "instructions")
    assert isinstance(sample, Sample)
    assert sample.dialogues == (Dialogue((Turn("What is there?", "A good one."),)),)
    prompt = only(tmp_path, vlfeedback_row(3), "prompts")
    assert isinstance(prompt, Sample)
    assert prompt.dialogues == (Dialogue((Turn("What is there?"),)),)
    assert list(VLFeedbackSource(root=str(tmp_path)).samples("captions")) == []


def test_completions_as_hugging_face_loads_them_give_the_same(tmp_path: Path) -> None:
    row = vlfeedback_row(3)
    names = ("model", "response", "annotations")
    columns = {name: [c[name] for c in row["completions"]] for name in names}
    assert only(tmp_path, row | {"completions": columns}) == only(tmp_path, row)
    reject = only(tmp_path, row | {"completions": columns | {"model": ["a"]}})
    assert isinstance(reject, Reject)
    assert "different lengths" in reject.detail


@pytest.mark.parametrize("rating", [5, "5", 5.0, "5.0"])
def test_a_whole_rating_is_read_however_it_is_written(tmp_path: Path, rating: Any) -> None:
    sample = only(
        tmp_path, vlfeedback_row(3, completions=[completion("a", "It.", ["3", rating, "3"])])
    )
    assert isinstance(sample, Sample)
    assert sample.annotations["ratings"][0]["Ethical Considerations"] == 5


@pytest.mark.parametrize(
    ("rating", "fault"),
    [
        ("0", "'0'"),
        ("6", "'6'"),
        (4.5, "4.5"),
        ("4.5", "'4.5'"),
        (-1, "-1"),
        (10**400, "1" + 39 * "0"),
    ],
)
def test_a_rating_outside_the_scale_is_a_reject(tmp_path: Path, rating: Any, fault: str) -> None:
    row = vlfeedback_row(3, completions=[completion("a", "It.", ["3", rating, "3"])])
    reject = only(tmp_path, row)
    assert isinstance(reject, Reject)
    expected = f"'Ethical Considerations'.Rating is {fault}, not a whole number from 1 to 5"
    assert reject.detail == f"completions[0].annotations.{expected}"


@pytest.mark.parametrize(
    ("completions", "reason"),
    [
        ([completion("a", "It.", ["N/A", "n/a", ""])], "no rating"),
        ([completion("a", " ", ["3", "3", "3"])], "no rating"),
        ([], "invalid row"),
        ([{"model": "a", "response": None, "annotations": {}}], "invalid row"),
        ([{"model": "a", "response": "It."}], "invalid row"),
    ],
)
def test_a_row_without_a_rated_response_is_a_reject(
    tmp_path: Path, completions: list[Any], reason: str
) -> None:
    reject = only(tmp_path, vlfeedback_row(3, completions=completions))
    assert isinstance(reject, Reject)
    assert reject.reason == reason


def test_the_scale_is_a_setting_that_is_checked(tmp_path: Path) -> None:
    write_rows(tmp_path, [vlfeedback_row(1)], name="f.jsonl", images="i", lines=True)
    source = VLFeedbackSource(root=str(tmp_path), file="f.jsonl", images="i", scale=[1, 2, 3, 4, 4])
    (sample,) = source.samples("candidates")
    assert isinstance(sample, Sample)
    assert sample.dialogues[1].turns[0].feedback == judged("b", 4, 4, 4)
    for scale in ([1, 2, 3, 4], [0, 1, 2, 3, 4]):
        with pytest.raises(InputError, match=r"source\.scale"):
            VLFeedbackSource(root=str(tmp_path), scale=scale)
