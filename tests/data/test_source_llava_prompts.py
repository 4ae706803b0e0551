"""LLaVA-RLHF's prompts, by hand: the question left open, the answer, and the facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dress.chat.judging import expected_answer, facts_of
from dress.data.sources.llava_prompts import LlavaPromptsSource
from dress.data.sources.source import Part
from dress.errors import InputError, Reject
from dress.types import Dialogue, Sample, Turn
from tests.data.released_rows import prompt_row, write_rows


def read(
    root: Path, rows: list[dict[str, Any]], part: Part = "prompts", captions: str | None = None
) -> list[Sample | Reject]:
    write_rows(root, rows, name="rows.json", images="images")
    source = LlavaPromptsSource(
        root=str(root), file="rows.json", images="images", captions=captions
    )
    return list(source.samples(part))


def test_a_prompt_is_the_first_question(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, [prompt_row(7, length_bonus=0.5)])
    assert isinstance(sample, Sample)
    assert sample.dialogues == (Dialogue((Turn("What is there?"),)),)
    assert sample.annotations["reference"] == "Thing 7."
    assert sample.annotations["length_bonus"] == 0.5 and expected_answer(sample) is None
    (answered,) = read(tmp_path, [prompt_row(7)], "instructions")
    assert isinstance(answered, Sample)
    assert answered.dialogues == (Dialogue((Turn("What is there?", "Thing 7."),)),)


def test_the_kind_says_what_is_right(tmp_path: Path) -> None:
    written = (1, "2", 3.0, "4.0", 5, 6, 7)
    rows = [prompt_row(n, caption_type=kind) for n, kind in enumerate(written, start=1)]
    answers = [expected_answer(s) for s in read(tmp_path, rows) if isinstance(s, Sample)]
    assert answers == [None, "A", "B", "C", "D", "no", "yes"]


def test_a_choice_is_judged_by_rationales(tmp_path: Path) -> None:
    known = {"1.jpg": ["A box."], "aok_1.jpg": ["It is square.", "It is red."]}
    (tmp_path / "captions.json").write_text(json.dumps(known))
    rows = [prompt_row(1), prompt_row(1, caption_type=3), prompt_row(1, caption_type=6)]
    found = [facts_of(s) for s in read(tmp_path, rows, captions="captions.json") if s]  # type: ignore[arg-type]
    assert found == [("A box.",), ("It is square.", "It is red."), ("A box.",)]


@pytest.mark.parametrize(
    "change",
    [
        *({"caption_type": kind} for kind in (8, True, 2.5, [1])),
        {"length_bonus": "long"},
        {"length_bonus": 10**400},
    ],
)
def test_a_bad_row_is_a_reject(tmp_path: Path, change: dict[str, Any]) -> None:
    (reject,) = read(tmp_path, [prompt_row(1, **change)])
    assert isinstance(reject, Reject) and next(iter(change)) in str(reject)


def test_captions_that_are_none_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "captions.json").write_text("[1]")
    with pytest.raises(InputError, match="no object of lists"):
        read(tmp_path, [prompt_row(1)], captions="captions.json")
