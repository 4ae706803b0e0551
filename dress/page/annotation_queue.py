"""Answers that wait for people, each for so many; who has which, and what they said."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

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
        self._held: dict[str, dict[str, float]] = {}  # who has an answer since when
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

    def judged(self, item: Item) -> dict[str, Judged]:
        """Return who has judged all aspects of an answer, and how."""
        judged = self.folder.session(item.session).judged.values()
        return {
            j.who: j for j in judged if j.answer == item.answer and len(j.ratings) == len(ASPECTS)
        }

    def next(self, who: str) -> Item | None:
        """Hand out an answer that more people have to judge, and keep it for this one a while."""
        now = time.monotonic()
        with self._lock:
            for item in self.items.values():
                done = self.judged(item)
                held = self._held.setdefault(item.answer, {})
                others = {w for w, since in held.items() if w != who and now - since < HELD_S}
                if who not in done and len(others | set(done)) < self.overlap:
                    held[who] = now
                    return item
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
        done = sum(len(self.judged(item)) >= self.overlap for item in self.items.values())
        return done, len(self.items)

    def feedback(self, item: Item) -> Feedback:
        """Return the mean rating per aspect, rounded, in the words of who is nearest to it."""
        said = self.judged(item).values()
        merged = {}
        for aspect in ASPECTS:
            mean = sum(j.ratings[aspect] for j in said) / len(said)
            rating = int(mean + 0.5)
            nearest = min(said, key=lambda j: abs(j.ratings[aspect] - rating))
            assert nearest.feedback is not None
            critique = nearest.feedback.judgements[aspect].critique
            merged[aspect] = Judgement(rating, critique, nearest.refinement)
        return Feedback(merged)

    def agreement(self) -> dict[str, float]:
        """Return Krippendorff's alpha of the ratings per aspect, as far as it is defined.

        It is for ordinal values (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability).
        """
        import krippendorff

        by_item = [self.judged(item) for item in self.items.values()]
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


def _id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _events(session: str, image: str, name: str, dialogue: Dialogue) -> tuple[list[Event], str]:
    """Return the turns of a dialogue as events whose ids come of what was said, and the last id."""
    events: list[Event] = []
    answer = ""
    for turn in dialogue.turns:
        key = _id("\0".join((name, answer, turn.user, turn.model or "")))
        opening: dict[str, Any] = {} if answer else {"image": image}
        events += [
            Asked(session=session, turn=f"t{key}", text=turn.user, parent=answer, **opening),
            Answered(
                session=session,
                turn=f"t{key}",
                answer=f"a{key}",
                text=turn.model or "",
                model="",
                target="",
            ),
        ]
        answer = f"a{key}"
    return events, answer
