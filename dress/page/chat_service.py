"""What the chat page does, without the page: ask, answer, judge, compare, propose; all is kept."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import uuid4

from dress.errors import InputError
from dress.feedback.annotator import Annotator
from dress.feedback.conversations import Answered, Asked, Conversation, Judged, Preferred
from dress.feedback.feedback_folder import FeedbackFolder
from dress.page.speaker import Speaker, Wish
from dress.types import Dialogue, Feedback, Sample, Turn
from dress.world.grammar import caption
from dress.world.questions import TASKS, Question, ask, reference
from dress.world.render import render
from dress.world.scene import Scene, draw_scenes


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a tab is: kept by the browser, so that a page that is loaded again goes on there."""

    session: str
    turn: str = ""  # the newest that is shown, or none yet
    image: str = ""  # of the opening
    scene: int = 0  # the seed of a drawn one

    @classmethod
    def of(cls, told: Any) -> Place:
        """Read what a browser says; anything else is a new session."""
        given = told if isinstance(told, dict) else {}
        known: dict[str, Any] = {name: given.get(name) for name in cls.__annotations__}
        texts = [value for name, value in known.items() if name != "scene"]
        sound = all(isinstance(text, str) and len(text) <= 80 for text in texts)
        if known and sound and known["session"] and isinstance(known["scene"], int):
            return cls(**known)
        return cls(session=uuid4().hex)

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Drawn:
    """A scene of the world, its picture and the questions of which the truth is known."""

    scene: Scene
    picture: bytes
    questions: Mapping[str, tuple[Question, str]]  # by text, with the true answer

    @classmethod
    def of(cls, seed: int) -> Drawn:
        (scene,) = draw_scenes(split="test", count=1, seed=seed)
        rng = random.Random(seed)
        asked = [question for task in TASKS if (question := ask(task, scene, rng))]
        answered = {q.text: (q, reference(q, scene, rng)) for q in asked}
        return cls(scene, render(scene, seed=seed), answered)

    @property
    def truth(self) -> list[tuple[str, str]]:
        told = [(text, truth) for text, (_, truth) in self.questions.items()]
        return [("The picture", caption(self.scene.things)), *told]

    def annotations(self, text: str) -> dict[str, Any]:
        question, truth = self.questions.get(text, (None, ""))
        if question is None:
            return {"scene": self.scene.to_json()}
        known = {"task": question.task, "question": question.to_json(), "reference": truth}
        return {"scene": self.scene.to_json(), **known}


class Desk:
    """Serve every tab; `annotator` proposes feedback where there is one."""

    def __init__(
        self,
        *,
        speakers: Sequence[Speaker],
        folder: FeedbackFolder,
        annotator: Annotator | None = None,
    ) -> None:
        self.speakers, self.folder, self.annotator = tuple(speakers), folder, annotator
        self._stops: dict[str, threading.Event] = {}

    def opened(self, place: Place) -> Place:
        """Return a place that exists; a new session where it was deleted meanwhile."""
        known = not place.turn or place.turn in self.conversation(place).turns
        return place if known else Place(session=uuid4().hex)

    def draw(self) -> Place:
        """Draw a scene, which opens a new session."""
        seed = random.SystemRandom().randrange(1, 2**31)
        image = self.folder.add_image(Drawn.of(seed).picture)
        return Place(session=uuid4().hex, image=image, scene=seed)

    def shown(self, data: bytes) -> Place:
        """Take a picture, which opens a new session."""
        return Place(session=uuid4().hex, image=self.folder.add_image(data))

    def conversation(self, place: Place) -> Conversation:
        return self.folder.session(place.session)

    def answers(self, place: Place) -> list[Answered]:
        """Return the answers to the newest turn, in the order in which they were given."""
        return [a for a in self.conversation(place).answers.values() if a.turn == place.turn]

    def wish(self, place: Place, text: str, parent: str, settings: Mapping[str, Any]) -> Wish:
        """Say what a model is asked: what led to the answer `parent`, and the text."""
        path = self.conversation(place).path(parent)
        turns = (*(Turn(asked.text, said.text) for asked, said in path), Turn(text))
        image = path[0][0].image if path else place.image
        if not image:
            raise InputError("give a picture first: upload or paste one, or draw a scene.")
        return Wish(image=self.folder.image(image), turns=turns, **settings)

    def ask(
        self,
        place: Place,
        text: str,
        *,
        parent: str,
        settings: Mapping[str, Any],
        who: str = "",
        blind: bool = False,
    ) -> Iterator[tuple[Place, list[tuple[str, str]]]]:
        """Keep a turn upon the answer `parent`, and yield the answers to it as they grow.

        They are (model, text) pairs. The last of them are kept before they are yielded, also where
        they were stopped. Where it is `blind` the models answer in an order drawn for the turn.
        """
        if not (text := text.strip()):
            raise InputError("say something first.")
        turn = uuid4().hex[:16]
        wish = self.wish(place, text, parent, {**settings, "seed": int(turn[:8], 16)})
        opening: dict[str, Any] = {} if parent else {"image": place.image}
        if place.scene:
            opening["truth"] = self._truth(place, text, parent)
        session = place.session
        self.folder.add(
            Asked(session=session, turn=turn, text=text, parent=parent, who=who, **opening)
        )
        place = replace(place, turn=turn)
        speakers = random.sample(self.speakers, len(self.speakers)) if blind else self.speakers
        stop = self._stops[session] = threading.Event()
        finished: list[tuple[str, str]] = []
        try:
            yield place, [(speaker.name, "") for speaker in speakers]
            for speaker in speakers:
                texts = [""]
                for texts in speaker.stream(wish, stop):
                    yield place, [*finished, *((speaker.name, text) for text in texts)]
                self._keep(place, speaker, wish, texts, stopped=stop.is_set())
                finished += [(speaker.name, text) for text in texts]
            yield place, finished
        finally:
            if self._stops.get(session) is stop:
                del self._stops[session]

    def _truth(self, place: Place, text: str, parent: str) -> Mapping[str, Any]:
        """Return what is known of a turn about a scene; a refinement asks its parent's question."""
        conversation = self.conversation(place)
        said = conversation.judged.values()
        if any((judged.answer, judged.refinement) == (parent, text) for judged in said):
            return conversation.path(parent)[-1][0].truth
        return Drawn.of(place.scene).annotations(text)

    def _keep(
        self, place: Place, speaker: Speaker, wish: Wish, texts: Sequence[str], *, stopped: bool
    ) -> None:
        self.folder.add(
            *(
                Answered(
                    session=place.session,
                    turn=place.turn,
                    answer=uuid4().hex[:16],
                    text=text,
                    model=speaker.name,
                    target=speaker.target(wish),
                    stopped=stopped,
                )
                for text in texts
            )
        )

    def stop(self, place: Place) -> None:
        if stop := self._stops.get(place.session):
            stop.set()

    def back(self, place: Place) -> tuple[Place, Asked]:
        """Return to before the newest turn, to say it otherwise; and what it was."""
        conversation = self.conversation(place)
        if (asked := conversation.turns.get(place.turn)) is None:
            raise InputError("there is no turn to change yet.")
        turn = conversation.answers[asked.parent].turn if asked.parent else ""
        return replace(place, turn=turn), asked

    def judge(self, place: Place, judged: Judged) -> None:
        judged = replace(judged, session=place.session)
        if self.conversation(place).judged.get((judged.answer, judged.who)) != judged:
            self.folder.add(judged)

    def prefer(self, place: Place, better: str, *, who: str = "") -> None:
        """Keep that one answer is better than each of the others to the same turn."""
        others = [a.answer for a in self.answers(place) if a.answer != better]
        self.folder.add(
            *(
                Preferred(session=place.session, better=better, worse=worse, who=who)
                for worse in others
            )
        )

    def propose(self, place: Place, answer: str) -> Feedback:
        """Return what the annotator says of an answer."""
        if self.annotator is None:
            raise InputError("no annotator is set: give annotator=oracle, rules or llm.")
        conversation = self.conversation(place)
        asked = [turn for turn, _ in conversation.path(answer)]
        dialogue = Dialogue(conversation.dialogue(answer, ""))
        image = self.folder.image(asked[0].image)
        sample = Sample(place.session, (image,), (dialogue,), asked[-1].truth)
        try:
            return self.annotator.annotate(sample, dialogue)
        except KeyError:
            raise InputError(
                "the annotator knows the truth of drawn scenes and of the questions that are "
                "offered with them: ask one of these."
            ) from None
