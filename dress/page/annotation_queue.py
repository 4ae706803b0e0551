"""Answers that wait for people, each for so many; who has which, and what they said."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from dress.errors import InputError, Reject
from dress.feedback.conversations import Answered, Asked, Event, Judged
from dress.feedback.feedback_folder import FeedbackFolder
from dress.records import ASPECTS, Dialogue, Feedback, Judgement, Sample

HELD_S = 600.0  # for which an answer is one person's, who may have left


@dataclass(frozen=True)
class Item:
    """An answer to be judged, with what was said before."""

    session: str
    answer: str
    dialogue: Dialogue
    image: str


class AnnotationQueue:
    """Hand answers out, each to `overlap` people; what they say is kept in a folder of sessions."""

    def __init__(self, *, folder: FeedbackFolder, overlap: int) -> None:
        self.folder, self.overlap = folder, overlap
        self.items: dict[str, Item] = {}
        # by answer: who has it since when
        self._held: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self._lock = threading.Lock()

    def add(self, sample: Sample) -> list[Item]:
        """Take in the last answers of a sample; one that was judged before stays judged."""
        if len(sample.images) != 1:
            raise Reject("people judge one image", key=sample.id, detail=f"{len(sample.images)}")
        image, session = self.folder.add_image(sample.images[0]), f"annotate-{_id(sample.id)}"
        items = []
        for dialogue in sample.dialogues:
            events, answer = _events(session, image, sample.id, dialogue)
            self.folder.add(*events)
            items.append(Item(session, answer, dialogue, image))
        self.items |= {item.answer: item for item in items}
        return items

    def judged(self) -> dict[str, dict[str, Judged]]:
        """Return by answer who has judged all its aspects, and how."""
        said: dict[str, dict[str, Judged]] = {answer: {} for answer in self.items}
        for judged in self.folder.judgements():
            if judged.answer in said and len(judged.ratings) == len(ASPECTS):
                said[judged.answer][judged.who] = judged
        return said

    def next(self, who: str) -> Item | None:
        """Hand out an answer that more people have to judge, and keep it for this one a while."""
        now = time.monotonic()
        with self._lock:
            for answer, done in self.judged().items():
                held = self._held[answer]
                others = {w for w, since in held.items() if w != who and now - since < HELD_S}
                if who not in done and len(others | set(done)) < self.overlap:
                    held[who] = now
                    return self.items[answer]
        return None

    def judge(self, judged: Judged) -> None:
        """Keep a judgement; InputError where it is not whole."""
        if (item := self.items.get(judged.answer)) is None:
            raise InputError("this answer is not in the queue: reload the page.")
        if len(judged.ratings) < len(ASPECTS):
            raise InputError("rate all three aspects first.")
        self.folder.add(replace(judged, session=item.session))

    def progress(self) -> tuple[int, int]:
        """Return how many answers have been judged by enough people, and how many there are."""
        done = [len(said) >= self.overlap for said in self.judged().values()]
        return sum(done), len(done)

    def agreement(self) -> dict[str, float]:
        """Return Krippendorff's alpha of the ratings per aspect, as far as it is defined.

        It is for ordinal values (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability).
        """
        import krippendorff

        by_item = self.judged().values()
        people = sorted({who for said in by_item for who in said})
        found: dict[str, float] = {}
        for aspect in ASPECTS:
            table = [
                [said[who].ratings[aspect] if who in said else np.nan for said in by_item]
                for who in people
            ]
            given = np.array(table, dtype=float)
            if len(people) > 1 and len(np.unique(given[~np.isnan(given)])) > 1:
                alpha = krippendorff.alpha(given, level_of_measurement="ordinal")
                found |= {f"annotator/alpha_{aspect}": float(alpha)} if np.isfinite(alpha) else {}
        return found


def merged(said: Collection[Judged]) -> Feedback:
    """Return the mean rating per aspect, rounded, in the words of who is nearest to it."""
    judgements = {}
    for aspect in ASPECTS:
        rating = int(sum(j.ratings[aspect] for j in said) / len(said) + 0.5)
        nearest = min(said, key=lambda j: abs(j.ratings[aspect] - rating))
        assert nearest.feedback is not None
        critique = nearest.feedback.judgements[aspect].critique
        judgements[aspect] = Judgement(rating, critique, nearest.refinement)
    return Feedback(judgements)


def _id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _events(session: str, image: str, name: str, dialogue: Dialogue) -> tuple[list[Event], str]:
    """Return the turns of a dialogue as events whose ids come of what was said, and the last id."""
    events: list[Event] = []
    answer = ""
    for turn in dialogue.turns:
        said = turn.model or ""
        key = _id("\0".join((name, answer, turn.user, said)))
        asked = Asked(session=session, turn=f"t{key}", text=turn.user, parent=answer)
        events.append(asked if answer else replace(asked, image=image))
        answer, turn_id = f"a{key}", asked.turn
        events.append(
            Answered(session=session, turn=turn_id, answer=answer, text=said, model="", target="")
        )
    return events, answer
