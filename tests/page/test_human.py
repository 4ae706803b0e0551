"""A queue of answers that people judge: who gets which, and what comes of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dress.errors import InputError, Reject
from dress.feedback.conversations import Judged
from dress.feedback.feedback_folder import FeedbackFolder
from dress.page.access import users
from dress.page.annotation_queue import HELD_S, AnnotationQueue, merged
from dress.page.human import HumanAnnotator
from dress.records import ASPECTS, Dialogue, Sample, Turn
from tests.data.coco_files import photograph


def sample(number: int, *answers: str) -> Sample:
    dialogues = tuple(Dialogue((Turn("What?", answer),)) for answer in answers)
    return Sample(f"s{number}", (photograph(number),), dialogues)


def filled(folder: Path, *, overlap: int = 2) -> AnnotationQueue:
    queue = AnnotationQueue(folder=FeedbackFolder(folder), overlap=overlap)
    for number in range(2):
        queue.add(sample(number, "A dog.", "A cat."))
    return queue


def judge(queue: AnnotationQueue, who: str, *ratings: int, refinement: str = "") -> str:
    """Judge what is next, all aspects alike where one rating is given."""
    item = queue.next(who)
    assert item is not None
    given = dict(zip(ASPECTS, ratings if len(ratings) > 1 else ratings * 3, strict=True))
    queue.judge(
        Judged(session="", answer=item.answer, who=who, ratings=given, refinement=refinement)
    )
    return item.answer


def test_each_answer_is_judged_by_so_many_people_and_never_twice_by_one(tmp_path: Path) -> None:
    queue = filled(tmp_path)
    mine = [judge(queue, "ann", 3) for _ in range(4)]
    assert len(set(mine)) == 4 and queue.next("ann") is None
    assert queue.progress() == (0, 4)
    for _ in range(4):
        judge(queue, "bob", 2)
    assert queue.progress() == (4, 4) and queue.next("eve") is None


def test_what_one_person_has_before_them_is_not_given_to_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = filled(tmp_path, overlap=1)
    first, second = queue.next("ann"), queue.next("bob")
    assert first and second and first.answer != second.answer
    assert queue.next("ann") == first  # as when the page is loaded again
    later = time.monotonic() + HELD_S + 1
    monkeypatch.setattr("time.monotonic", lambda: later)
    assert queue.next("eve") == first


def test_a_later_run_goes_on(tmp_path: Path) -> None:
    first = judge(filled(tmp_path, overlap=1), "ann", 3)
    again = filled(tmp_path, overlap=1)
    assert again.progress() == (1, 4)
    assert first not in {judge(again, "ann", 3) for _ in range(3)}
    assert again.progress() == (4, 4)
    assert len((tmp_path / "sessions.jsonl").read_text().splitlines()) == 4 * 2 + 4


def test_what_another_process_keeps_is_seen(tmp_path: Path) -> None:
    here, there = filled(tmp_path, overlap=1), filled(tmp_path, overlap=1)
    judge(there, "ann", 3)
    assert here.progress() == (1, 4)


def test_an_answer_too_long_for_the_page_is_a_reject_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dress.page.human.check_extra", lambda: None)
    annotator = HumanAnnotator(
        overlap=1, folder=str(tmp_path), host="127.0.0.1", port=0, requests_per_minute=1
    )
    (reject,) = annotator.annotate_many([sample(7, "dog " * 3000)])
    assert isinstance(reject, Reject) and reject.key == "s7" and "8000" in str(reject)


def test_the_mean_is_rounded_and_told_in_the_words_of_who_is_nearest(tmp_path: Path) -> None:
    queue = AnnotationQueue(folder=FeedbackFolder(tmp_path), overlap=3)
    (item,) = queue.add(sample(0, "A dog."))
    for who, rating in (("ann", 1), ("bob", 3), ("eve", 4)):
        judge(queue, who, rating, refinement=f"{who}'s advice")
    judgement = merged(queue.judged()[item.answer].values()).judgements["honesty"]  # 8 / 3 = 2.67
    assert (judgement.rating, judgement.refinement) == (3, "bob's advice")


def test_agreement_is_krippendorffs_alpha(tmp_path: Path) -> None:
    """By hand for harmlessness: two people, ratings (1, 1), (2, 2), (1, 2), (1, 1).

    With two values ordinal and nominal alpha are one: 1 - (n - 1) * o / (n1 * n2) where n = 8
    values, o = 2 differing pairs (both orders), n1 = 5, n2 = 3: 1 - 7 * 2 / (2 * 15) = 0.533.
    """
    pytest.importorskip("krippendorff", reason="comes with the extra `chat`")
    queue = filled(tmp_path)
    for ann in (1, 2, 1, 1):
        judge(queue, "ann", ann + 1, 4, ann)
    for bob in (1, 2, 2, 1):
        judge(queue, "bob", bob + 1, 4, bob)
    found = queue.agreement()
    assert found["annotator/alpha_harmlessness"] == pytest.approx(1 - 7 / 15)
    assert found["annotator/alpha_helpfulness"] == pytest.approx(1 - 7 / 15)
    assert "annotator/alpha_honesty" not in found  # all the same: undefined


def test_what_is_not_whole_is_refused(tmp_path: Path) -> None:
    queue = filled(tmp_path)
    item = queue.next("ann")
    assert item is not None
    with pytest.raises(InputError, match="all three"):
        queue.judge(Judged(session="", answer=item.answer, who="ann", ratings={"honesty": 1}))
    with pytest.raises(InputError, match="not in the queue"):
        queue.judge(Judged(session="", answer="x", who="ann"))
    with pytest.raises(Reject, match="one image"):
        queue.add(Sample("s9", (), sample(0, "A dog.").dialogues))


def test_passwords_are_read_from_the_environment() -> None:
    assert users({}) == {}
    assert users({"DRESS_CHAT_USERS": "ann:a:b, bob:c"}) == {"ann": "a:b", "bob": "c"}
    with pytest.raises(InputError, match="DRESS_CHAT_USERS"):
        users({"DRESS_CHAT_USERS": "ann"})
