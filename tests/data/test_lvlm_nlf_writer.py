"""What is written in LVLM_NLF's format is what its reader reads."""

from __future__ import annotations

import json
from pathlib import Path

from dress.data.lvlm_nlf_writer import LvlmNlfWriter, interaction_of
from dress.data.sources.lvlm_nlf import LVLMNLFSource
from dress.types import ASPECTS, Dialogue, Feedback, Judgement, Sample, Turn
from dress.world.render import render
from dress.world.scene import Scene, Thing

PICTURE = render(Scene((Thing(0, "red", "circle", "small"),)), seed="a")


def feedback(rating: int, refinement: str = "", *, aspects: tuple[str, ...] = ASPECTS) -> Feedback:
    return Feedback({a: Judgement(rating, f"{a} is {rating}.", refinement) for a in aspects})


DIALOGUE = Dialogue(
    (
        Turn("What is it?", "A dog.", feedback(1, "Look again.")),
        Turn("Look again.", "A red circle.", feedback(4)),
    )
)
SHORT = Dialogue((Turn("What is it?", "A cat.", feedback(2)),))


def test_dialogues_come_back_from_every_file(tmp_path: Path) -> None:
    with LvlmNlfWriter(tmp_path) as writer:
        writer.add(Sample("a-1", (PICTURE,), (DIALOGUE, SHORT), {"captions": ["A circle."]}))
    for aspect in ASPECTS:
        source = LVLMNLFSource(root=str(tmp_path), files=[f"{aspect}_nlf.jsonl"], images="images")
        samples = list(source.samples("candidates"))
        assert [s.dialogues[0] for s in samples if isinstance(s, Sample)] == [
            Dialogue(
                tuple(
                    Turn(t.user, t.model, Feedback({aspect: t.feedback.judgements[aspect]}))
                    for t in dialogue.turns
                    if t.feedback
                )
            )
            for dialogue in (DIALOGUE, SHORT)
        ]
        for sample in samples:
            assert isinstance(sample, Sample)
            assert sample.images == (PICTURE,)
            assert sample.annotations["captions"] == ["A circle."]


def test_rows_are_those_of_the_released_files(tmp_path: Path) -> None:
    with LvlmNlfWriter(tmp_path) as writer:
        writer.add(Sample("a", (PICTURE,), (SHORT,)))
    (row,) = map(json.loads, (tmp_path / "honesty_nlf.jsonl").read_text().splitlines())
    assert row == {
        "image_id": "a.jpg",
        "caption": "",
        "interaction": [
            {
                "user": "What is it?",
                "model": "A cat.",
                "rating": "2",
                "critique NLF": "honesty is 2.",
            }
        ],
    }


def test_what_the_format_cannot_hold_is_left_out(tmp_path: Path) -> None:
    silent = Dialogue((Turn("What is it?", "", feedback(1)),))
    partly = Dialogue((Turn("What is it?", "A dog.", feedback(1, aspects=("honesty",))),))
    assert interaction_of(silent, "honesty") == []
    assert interaction_of(partly, "helpfulness") == [] != interaction_of(partly, "honesty")
    with LvlmNlfWriter(tmp_path) as writer:
        writer.add(Sample("a", (), (SHORT,)))
        writer.add(Sample("b", (PICTURE,), (silent,)))
    assert not any((tmp_path / f"{aspect}_nlf.jsonl").read_text() for aspect in ASPECTS)
    assert not list((tmp_path / "images").iterdir())


def test_an_id_or_a_name_leads_nowhere_else(tmp_path: Path) -> None:
    inside = tmp_path / "lvlm"
    for name in ("../x.jpg", "/x.jpg", ".", "..", "a/b.jpg", "x\0.jpg", "x" * 300):
        alone = Dialogue((Turn("What?", "A dog.", feedback(1, aspects=("honesty",))),))
        with LvlmNlfWriter(inside) as writer:
            writer.add(Sample("../../out", (PICTURE,), (alone,), {"image_id": name}))
        assert [path.name for path in tmp_path.iterdir()] == ["lvlm"]
        (image,) = (inside / "images").iterdir()
        assert image.name == "%2E%2E%2F%2E%2E%2Fout.jpg"


def test_images_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    other = render(Scene((Thing(1, "blue", "square", "large"),)), seed="b")
    alone = Dialogue((Turn("What?", "A dog.", feedback(1, aspects=("honesty",))),))
    with LvlmNlfWriter(tmp_path) as writer:
        for name, picture in (("a", PICTURE), ("b", other), ("c", PICTURE)):
            writer.add(Sample(name, (picture,), (alone,), {"image_id": "1.jpg"}))
    source = LVLMNLFSource(root=str(tmp_path), files=["honesty_nlf.jsonl"])
    found = [s for s in source.samples("candidates") if isinstance(s, Sample)]
    assert [(s.id, s.images[0]) for s in found] == [("a", PICTURE), ("b", other), ("c", PICTURE)]
    assert [s.annotations["image_id"] for s in found] == ["1.jpg", "b.jpg", "1.jpg"]


def test_what_was_written_once_is_written_again_as_it_was(tmp_path: Path) -> None:
    with LvlmNlfWriter(tmp_path / "first") as writer:
        writer.add(Sample("coco/a-1", (PICTURE,), (DIALOGUE, SHORT)))
    found: list[list[Sample]] = []
    for folder, after in (("first", "second"), ("second", "third")):
        source = LVLMNLFSource(root=str(tmp_path / folder), files=["*_nlf.jsonl"])
        found.append([s for s in source.samples("candidates") if isinstance(s, Sample)])
        with LvlmNlfWriter(tmp_path / after) as writer:
            for sample in found[-1]:
                writer.add(sample)
    first, second = found
    assert len(first) == 6 and first == second
    for aspect in ASPECTS:
        name = f"{aspect}_nlf.jsonl"
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "third" / name).read_bytes()
