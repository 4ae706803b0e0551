"""Which of what people said becomes a row to train on, and what the row then holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dress.data.sources.lvlm_nlf import LVLMNLFSource
from dress.feedback.conversations import Judged, Preferred
from dress.feedback.feedback_folder import PREFERENCES, FeedbackFolder
from dress.records import Sample
from tests.feedback.talk import answered, asked, judged, opened


def nlf(root: Path) -> list[Sample]:
    source = LVLMNLFSource(root=str(root))
    found = [s for row in source.rows("candidates") for s in source.convert("candidates", row)]
    assert all(isinstance(sample, Sample) for sample in found)
    return found  # type: ignore[return-value]


def test_a_refinement_is_what_its_box_held_whatever_was_said_next(tmp_path: Path) -> None:
    folder = FeedbackFolder(tmp_path)
    unsent = Judged(session="s", answer="a1", ratings={"honesty": 1}, refinement="It is a cat.")
    folder.add(opened(folder, asked()), answered(), unsent)
    folder.add(asked("t2", parent="a1", text="And the sky?"), answered("a2", turn="t2"))
    folder.add(judged("a2", honesty=4))
    folder.add(asked("t3", parent="a2", text="And the sea?"), answered("a3", turn="t3"))
    folder.add(judged("a3", honesty=4))
    (sample,) = nlf(tmp_path)
    judged_turns = [t.feedback.judgements["honesty"] for t in sample.dialogues[0].turns]  # type: ignore[union-attr]
    assert [j.refinement for j in judged_turns] == ["It is a cat.", "", ""]


def test_another_choice_of_the_better_answer_ends_the_first(tmp_path: Path) -> None:
    folder = FeedbackFolder(tmp_path)
    folder.add(opened(folder, asked()), *(answered(a, text=a) for a in "abc"))
    for who, better in (("", "a"), ("ann", "c"), ("", "b")):
        worse = [a for a in "abc" if a != better]
        folder.add(*(Preferred(session="s", better=better, worse=w, who=who) for w in worse))
    kept = {(p.who, p.better, p.worse) for p in folder.session("s").preferred.values()}
    assert kept == {("", "b", "a"), ("", "b", "c"), ("ann", "c", "a"), ("ann", "c", "b")}


def test_a_stopped_answer_is_kept_and_no_row(tmp_path: Path) -> None:
    folder = FeedbackFolder(tmp_path)
    stopped = replace(answered("a2", text="A bi"), stopped=True)
    folder.add(opened(folder, asked()), answered(), stopped, judged(helpfulness=3))
    folder.add(judged("a2", helpfulness=1), Preferred(session="s", better="a1", worse="a2"))
    follows = (
        asked("t2", parent="a2"),
        answered("b", turn="t2", text="Yes."),
        judged("b", honesty=4),
    )
    folder.add(*follows)
    assert [s.id for s in nlf(tmp_path)] == ["a1"] and not (tmp_path / PREFERENCES).exists()
    assert len(folder.session("s").judged) == 3
    folder.add(asked("t3", parent="a1"), replace(answered("c", turn="t3"), stopped=True))
    folder.add(judged("c", honesty=1))  # what was judged before it is a row still
    assert [s.id for s in nlf(tmp_path)] == ["a1"]
