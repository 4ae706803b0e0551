"""Whatever was confirmed is in the folder, and the folder is data as it lies."""

from __future__ import annotations

import io
import json
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from dress.data.sources.llava_preference import LlavaPreferenceSource
from dress.data.sources.lvlm_nlf import LVLMNLFSource
from dress.errors import InputError, Reject
from dress.feedback.conversations import LONGEST_TEXT, Asked, Judged, Preferred
from dress.feedback.feedback_folder import NLF, PREFERENCES, SESSIONS, FeedbackFolder
from dress.records import BANK, Feedback, Judgement, Sample, Turn
from tests.data.coco_files import photograph
from tests.disk import files_of_at_most
from tests.feedback.talk import answered, asked, judged, opened
from tests.processes import ROOT, Process


def samples(source: LVLMNLFSource | LlavaPreferenceSource) -> list[Sample]:
    found = []
    for row in source.rows("candidates"):
        for item in source.convert("candidates", row):
            assert isinstance(item, Sample), item
            found.append(item)
    return found


def nlf(root: Path) -> list[Sample]:
    return samples(LVLMNLFSource(root=str(root)))


def test_a_refined_dialogue_is_a_row_of_both_turns_with_all_aspects(tmp_path: Path) -> None:
    folder = FeedbackFolder(tmp_path)
    first = Judged(
        session="s",
        answer="a1",
        ratings={"helpfulness": 2, "honesty": 1},
        critiques={"honesty": "There is no dog.", "overall": "Look again."},
        refinement="It is a cat.",
    )
    folder.add(opened(folder, asked(text="What is this?")), answered(), first)
    folder.add(
        asked("t2", parent="a1", text="It is a cat."), answered("a2", turn="t2", text="A cat.")
    )
    folder.add(judged("a2", helpfulness=4))
    (sample,) = nlf(tmp_path)
    (dialogue,) = sample.dialogues
    assert dialogue.turns == (
        Turn(
            "What is this?",
            "A dog.",
            Feedback(
                {
                    "helpfulness": Judgement(2, "Look again.", "It is a cat."),
                    "honesty": Judgement(1, "There is no dog.", "It is a cat."),
                }
            ),
        ),
        Turn(
            "It is a cat.",
            "A cat.",
            Feedback({"helpfulness": Judgement(4, BANK["helpfulness"][4])}),
        ),
    )
    assert sample.annotations["reference"] == "A cat."
    (row,) = map(json.loads, (tmp_path / NLF).read_text().splitlines())
    assert row["interaction"][0]["rating"] == "2"  # as others read it
    assert row["interaction"][0]["critique NLF"] == "Look again."


def test_a_turn_between_that_nobody_judged_has_no_feedback(tmp_path: Path) -> None:
    folder = FeedbackFolder(tmp_path)
    folder.add(opened(folder, asked()), answered())
    folder.add(asked("t2", parent="a1"), answered("a2", turn="t2"), judged("a2", honesty=3))
    (sample,) = nlf(tmp_path)
    first, second = sample.dialogues[0].turns
    assert first.feedback is None and second.feedback is not None


@pytest.mark.parametrize(
    ("judgements", "said"),
    [
        ({"style": {"rating": 1, "critique": "x"}}, "'style', which is no aspect"),
        ({"honesty": {"rating": 5, "critique": "x"}}, "judgements.honesty.rating is 5"),
        ({"honesty": 3}, "judgements.honesty is 3, not an object"),
        ([], "judgements is [], not an object"),
    ],
)
def test_judgements_that_are_none_are_a_reject(
    tmp_path: Path, judgements: object, said: str
) -> None:
    folder = FeedbackFolder(tmp_path)
    folder.add(opened(folder, asked()), answered(), judged(helpfulness=3))
    row = json.loads((tmp_path / NLF).read_text())
    row["interaction"][0]["judgements"] = judgements
    (tmp_path / NLF).write_text(json.dumps(row))
    source = LVLMNLFSource(root=str(tmp_path))
    ((reject,),) = (source.convert("candidates", r) for r in source.rows("candidates"))
    assert isinstance(reject, Reject) and said in reject.detail


def test_the_last_judgement_of_each_person_counts(tmp_path: Path) -> None:
    folder = FeedbackFolder(tmp_path)
    folder.add(opened(folder, asked()), answered())
    for who, rating in (("ann", 1), ("bob", 2), ("ann", 4)):
        folder.add(judged(who=who, helpfulness=rating))
    ratings = {
        sample.id: sample.dialogues[0].turns[0].feedback.mean_rating  # type: ignore[union-attr]
        for sample in nlf(tmp_path)
    }
    assert ratings == {"a1-ann": 4, "a1-bob": 2}


def test_the_better_of_two_is_a_row_of_preferences(tmp_path: Path) -> None:
    folder = FeedbackFolder(tmp_path)
    folder.add(opened(folder, asked(text="<image> or <image>?")), answered(text="One."))
    folder.add(asked("t2", parent="a1", text="Again."))
    folder.add(answered("a2", turn="t2", text="Two."), answered("a3", turn="t2", text="Three."))
    folder.add(Preferred(session="s", better="a3", worse="a2"))
    source = LlavaPreferenceSource(root=str(tmp_path), file=PREFERENCES, images="images")
    (sample,) = samples(source)
    assert [d.turns[-1].model for d in sample.dialogues] == ["Two.", "Three."]
    assert sample.annotations["scores"] == [0.0, 1.0]
    assert [t.user for t in sample.dialogues[0].turns] == ["< image> or < image>?", "Again."]
    with pytest.raises(InputError, match="one question"):
        folder.add(Preferred(session="s", better="a1", worse="a2"))


def test_a_blank_answer_is_kept_and_no_row(tmp_path: Path) -> None:
    folder = FeedbackFolder(tmp_path)
    folder.add(opened(folder, asked()), answered(text=" "), judged(helpfulness=1))
    assert not (tmp_path / NLF).exists()
    assert ("a1", "") in FeedbackFolder(tmp_path).session("s").judged


def test_the_folder_is_read_again_and_what_is_wrong_is_refused(tmp_path: Path) -> None:
    folder = FeedbackFolder(tmp_path)
    folder.add(opened(folder, asked()), answered(), judged(helpfulness=3))
    written = (tmp_path / SESSIONS).read_bytes()
    image = folder.session("s").turns["t1"].image
    for call in (
        lambda: folder.add(answered("a2", turn="t9")),
        lambda: folder.add(judged("a9", helpfulness=1)),
        lambda: judged(helpfulness=5),
        lambda: Judged(session="s", answer="a1", critiques={"style": "x"}),
        lambda: asked(text="x" * (LONGEST_TEXT + 1)),
        lambda: asked(text="\ud800"),
        lambda: folder.add(Asked(session="s", turn="t3", text="?", image="../../etc/passwd")),
        lambda: folder.add(Asked(session="s", turn="t3", text="?", image=f"../../{image}")),
        lambda: folder.add(asked("t4", session="other")),
    ):
        with pytest.raises(InputError):
            call()
    assert (tmp_path / SESSIONS).read_bytes() == written
    assert FeedbackFolder(tmp_path).session("s") == folder.session("s")


def test_pictures_are_kept_by_content_and_bounded(tmp_path: Path) -> None:
    folder = FeedbackFolder(tmp_path)
    name = folder.add_image(photograph(1))
    assert folder.add_image(photograph(1)) == name and folder.image(name) == photograph(1)
    with pytest.raises(InputError, match="20 MB"):
        folder.add_image(bytes(50 * 2**20))
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    for data in (b"<html>", b"", bomb.getvalue()):
        with pytest.raises(Reject):
            folder.add_image(data)
    with pytest.raises(Reject):
        folder.image("../sessions.jsonl")
    assert len(list((tmp_path / "images").iterdir())) == 1


def test_a_cut_line_is_removed_and_the_rows_are_written_again(tmp_path: Path) -> None:
    folder = FeedbackFolder(tmp_path)
    folder.add(opened(folder, asked()), answered(), judged(helpfulness=3))
    rows = (tmp_path / NLF).read_text()
    (tmp_path / NLF).unlink()
    with (tmp_path / SESSIONS).open("a") as file:
        file.write('{"event": "judged", "sess')
    again = FeedbackFolder(tmp_path)
    assert (tmp_path / NLF).read_text() == rows
    again.add(judged(helpfulness=1))
    assert [json.loads(line)["event"] for line in (tmp_path / SESSIONS).open()] == [
        "asked", "answered", "judged", "judged",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"\xff", b'{"event": "judged", "session": "s", "answer": "a9"}']
)
def test_a_foreign_line_is_named_and_costs_no_row(tmp_path: Path, line: bytes) -> None:
    folder = FeedbackFolder(tmp_path)
    folder.add(opened(folder, asked()), answered())
    events = (tmp_path / SESSIONS).read_bytes()
    with (tmp_path / SESSIONS).open("ab") as file:
        file.write(b'{"note": 1}\n\n' + line + b"\n")
    for _ in range(2):
        with pytest.raises(InputError, match=r"sessions\.jsonl:5 is no event"):
            folder.add(judged(helpfulness=3))
    with pytest.raises(InputError, match=r"sessions\.jsonl:5 is no event"):
        FeedbackFolder(tmp_path)
    (tmp_path / SESSIONS).write_bytes(events + b'{"note": 1}\n\n')
    folder.add(judged(helpfulness=3))
    assert len(nlf(tmp_path)) == 1
    assert folder.forget(lambda name: name == "s") == 1
    assert (tmp_path / SESSIONS).read_bytes() == b'{"note": 1}\n\n'


def test_a_full_disk_loses_nothing_that_was_confirmed(tmp_path: Path) -> None:
    folder = FeedbackFolder(tmp_path)
    folder.add(opened(folder, asked()), answered(), judged(helpfulness=3))
    before = (tmp_path / SESSIONS).read_bytes()
    with files_of_at_most(len(before) + 10), pytest.raises(OSError, match=SESSIONS):
        folder.add(judged(helpfulness=1))
    assert (tmp_path / SESSIONS).read_bytes() == before
    assert folder.session("s").judged["a1", ""].ratings == {"helpfulness": 3}
    folder.add(judged(helpfulness=2))
    assert nlf(tmp_path)[0].dialogues[0].turns[0].feedback.mean_rating == 2  # type: ignore[union-attr]


def test_sessions_are_forgotten_with_their_pictures(tmp_path: Path) -> None:
    folder, other = FeedbackFolder(tmp_path), FeedbackFolder(tmp_path)
    for number, session in enumerate(("gone", "kept")):
        folder.add(opened(folder, asked(session, session=session), picture=number))
        folder.add(answered(session, turn=session, session=session))
        folder.add(judged(session, session=session, helpfulness=3))
    fresh = folder.add_image(photograph(2))  # of a page on which nothing was asked yet
    assert folder.forget(lambda name: name == "gone") == 1
    assert folder.image(fresh) == photograph(2)
    assert "gone" not in "".join(p.read_text() for p in tmp_path.glob("*.js*"))
    assert len(list((tmp_path / "images").iterdir())) == 2
    other.add(judged("kept", session="kept", helpfulness=1))
    assert "gone" not in other.conversations and len(nlf(tmp_path)) == 1


def test_two_folders_and_many_threads_write_at_once(tmp_path: Path) -> None:
    folders = [FeedbackFolder(tmp_path) for _ in range(2)]

    def talk(number: int) -> None:
        folder, name = folders[number % 2], str(number)
        folder.add(opened(folder, asked(name, session=name)))
        folder.add(answered(name, turn=name, session=name))
        folder.add(judged(name, session=name, harmlessness=number % 4 + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(talk, range(24)))
    assert threading.active_count() < 20
    assert sorted(int(s.id) for s in nlf(tmp_path)) == list(range(24))


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_any_moment_the_folder_holds_what_was_confirmed(
    tmp_path: Path, kills: int
) -> None:
    rng, confirmed = random.Random(0), set()
    for kill in range(kills):
        talkers = [
            Process(
                ROOT / "tests/feedback/talk.py",
                [str(tmp_path), f"{kill}.{number}"],
                environment=os.environ,
            )
            for number in range(2)
        ]
        for talker in talkers:
            confirmed |= {talker.stdout.readline() for _ in range(11)}
        time.sleep(rng.uniform(0, 0.3))
        for talker in talkers:
            talker.kill()
            said, _ = talker.communicate(120)
            confirmed |= {line for line in said.splitlines(keepends=True) if line.endswith("\n")}
    folder = FeedbackFolder(tmp_path)
    events = [json.loads(line) for line in (tmp_path / SESSIONS).read_text().splitlines()]
    here = {f"{e['event']} {e.get('answer', e.get('turn', '') + '-a')}\n" for e in events}
    assert len(confirmed) > kills and confirmed <= here  # on a busy machine not many
    judged_answers = {e["answer"] for e in events if e["event"] == "judged"}
    assert {sample.id for sample in nlf(tmp_path)} == judged_answers
    assert len(folder.conversations) == len({e["session"] for e in events})
