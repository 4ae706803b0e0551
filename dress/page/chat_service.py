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
from dress.page.streamer import Request, Streamer
from dress.records import Dialogue, Sample, Turn
from dress.world.grammar import caption
from dress.world.questions import TASKS, Question, ask, reference
from dress.world.render import render
from dress.world.scene import Scene, draw_scenes


@dataclass(frozen=True, kw_only=True)
class TabState:
    """Where a tab is: kept by the browser, so that a page that is loaded again goes on there."""

    session: str
    turn: str = ""  # the newest that is shown, or none yet
    image: str = ""  # of the opening
    scene: int = 0  # the seed of a drawn one

    @classmethod
    def read(cls, stored: Any) -> TabState:
        """Read what a browser has stored; anything else is a new session."""
        values = stored if isinstance(stored, dict) else {}
        fields: dict[str, Any] = {name: values.get(name) for name in cls.__annotations__}
        texts = [value for name, value in fields.items() if name != "scene"]
        sound = all(isinstance(text, str) and len(text) <= 80 for text in texts)
        if sound and fields["session"] and isinstance(fields["scene"], int):
            return cls(**fields)
        return new_tab()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def new_tab(*, image: str = "", scene: int = 0) -> TabState:
    return TabState(session=uuid4().hex, image=image, scene=scene)


@dataclass(frozen=True)
class DrawnScene:
    """A scene of the world, its picture and the questions of which the truth is known."""

    scene: Scene
    picture: bytes
    questions: Mapping[str, tuple[Question, str]]  # by text, with the true answer

    @classmethod
    def of(cls, seed: int) -> DrawnScene:
        (scene,) = draw_scenes(split="test", count=1, seed=seed)
        rng = random.Random(seed)
        asked = [question for task in TASKS if (question := ask(task, scene, rng))]
        answered = {q.text: (q, reference(q, scene, rng)) for q in asked}
        return cls(scene, render(scene, seed=seed), answered)

    @property
    def truth(self) -> list[tuple[str, str]]:
        answers = [(text, truth) for text, (_, truth) in self.questions.items()]
        return [("The picture", caption(self.scene.things)), *answers]

    def annotations(self, text: str) -> dict[str, Any]:
        """Return what an annotator may know of a turn of this text."""
        known: dict[str, Any] = {"scene": self.scene.to_json()}
        if text in self.questions:
            question, truth = self.questions[text]
            known |= {"task": question.task, "question": question.to_json(), "reference": truth}
        return known


class ChatService:
    """Serve every tab; `annotator` proposes feedback where there is one."""

    def __init__(
        self,
        *,
        streamers: Sequence[Streamer],
        folder: FeedbackFolder,
        annotator: Annotator | None = None,
    ) -> None:
        self.streamers, self.folder, self.annotator = tuple(streamers), folder, annotator
        self._stops: dict[str, threading.Event] = {}  # by session, while it is answered

    def conversation(self, tab: TabState) -> Conversation:
        return self.folder.session(tab.session)

    def answers(self, tab: TabState) -> list[Answered]:
        """Return the answers to the newest turn, in the order in which they were given."""
        return [a for a in self.conversation(tab).answers.values() if a.turn == tab.turn]

    def opened(self, tab: TabState) -> TabState:
        """Return a state that exists; a new session where it was deleted meanwhile."""
        return tab if not tab.turn or tab.turn in self.conversation(tab).turns else new_tab()

    def draw(self) -> TabState:
        """Draw a scene, which opens a new session."""
        seed = random.SystemRandom().randrange(1, 2**31)
        return new_tab(image=self.folder.add_image(DrawnScene.of(seed).picture), scene=seed)

    def upload(self, data: bytes) -> TabState:
        """Take a picture, which opens a new session."""
        return new_tab(image=self.folder.add_image(data))

    def request(
        self, tab: TabState, text: str, parent: str, settings: Mapping[str, Any]
    ) -> Request:
        """Say what the models are asked: what led to the answer `parent`, and the text."""
        if not (text := text.strip()):
            raise InputError("say something first.")
        path = self.conversation(tab).path(parent)
        turns = (*(Turn(asked.text, answered.text) for asked, answered in path), Turn(text))
        image = path[0][0].image if path else tab.image
        if not image:
            raise InputError("give a picture first: upload or paste one, or draw a scene.")
        seed = random.SystemRandom().randrange(2**31)
        data = self.folder.image(image)
        return Request(image=data, turns=turns, parent=parent, seed=seed, **settings)

    def ask(
        self, tab: TabState, request: Request, *, who: str = "", blind: bool = False
    ) -> Iterator[tuple[TabState, list[tuple[str, str]]]]:
        """Keep the request as a turn, and yield the answers to it as they grow.

        They are (model, text) pairs. The last of them are kept before they are yielded, also where
        they were stopped. Where it is `blind` the models answer in an order drawn for the turn.
        """
        text, session, turn = request.turns[-1].user, tab.session, uuid4().hex[:16]
        asked = Asked(session=session, turn=turn, text=text, parent=request.parent, who=who)
        if not request.parent:
            asked = replace(asked, image=tab.image)
        self.folder.add(replace(asked, truth=self._truth(tab, text, request.parent)))
        tab = replace(tab, turn=turn)
        streamers = random.sample(self.streamers, len(self.streamers)) if blind else self.streamers
        stop = self._stops[session] = threading.Event()
        finished: list[tuple[str, str]] = []
        try:
            yield tab, [(streamer.name, "") for streamer in streamers]
            for streamer in streamers:
                texts = [""]
                for texts in streamer.stream(request, stop):
                    yield tab, [*finished, *((streamer.name, text) for text in texts)]
                answer = Answered(
                    session=session,
                    turn=turn,
                    answer="",
                    text="",
                    model=streamer.name,
                    target=streamer.target(request),
                    stopped=stop.is_set(),
                )
                self.folder.add(*(replace(answer, answer=uuid4().hex[:16], text=t) for t in texts))
                finished += [(streamer.name, text) for text in texts]
            yield tab, finished
        finally:
            stop.set()  # nobody listens any more
            if self._stops.get(session) is stop:
                del self._stops[session]

    def _truth(self, tab: TabState, text: str, parent: str) -> Mapping[str, Any]:
        """Return what is known of a turn about a scene; a refinement asks its parent's question."""
        if not tab.scene:
            return {}
        conversation = self.conversation(tab)
        for judged in conversation.judged.values():
            if (judged.answer, judged.refinement) == (parent, text):
                return conversation.path(parent)[-1][0].truth
        return DrawnScene.of(tab.scene).annotations(text)

    def stop(self, tab: TabState) -> None:
        if stop := self._stops.get(tab.session):
            stop.set()

    def back(self, tab: TabState) -> tuple[TabState, Asked]:
        """Return to before the newest turn, to say it otherwise; and what it was."""
        conversation = self.conversation(tab)
        if (asked := conversation.turns.get(tab.turn)) is None:
            raise InputError("there is no turn to change yet.")
        turn = conversation.answers[asked.parent].turn if asked.parent else ""
        return replace(tab, turn=turn), asked

    def prefer(self, tab: TabState, better: str, *, who: str = "") -> None:
        """Keep that one answer is better than each of the others to the same turn."""
        others = [a.answer for a in self.answers(tab) if a.answer != better]
        self.folder.add(
            *(Preferred(session=tab.session, better=better, worse=o, who=who) for o in others)
        )

    def judge(self, tab: TabState, judged: Judged) -> None:
        self.folder.add(replace(judged, session=tab.session))

    def propose(self, tab: TabState, answer: str) -> Judged:
        """Return what the annotator says of an answer, which nobody has said yet."""
        if self.annotator is None:
            raise InputError("no annotator is set: give annotator=oracle, rules or llm.")
        conversation = self.conversation(tab)
        path = conversation.path(answer)
        dialogue = Dialogue(conversation.dialogue(answer, ""))
        image = self.folder.image(path[0][0].image)
        sample = Sample(tab.session, (image,), (dialogue,), path[-1][0].truth)
        try:
            feedback = self.annotator.annotate(sample, dialogue)
        except KeyError:
            raise InputError(
                "the annotator knows the truth of drawn scenes and of the questions that are "
                "offered with them: ask one of these."
            ) from None
        return Judged(
            session=tab.session,
            answer=answer,
            ratings={aspect: j.rating for aspect, j in feedback.judgements.items()},
            critiques={aspect: j.critique for aspect, j in feedback.judgements.items()},
            refinement=feedback.refinement,
        )
