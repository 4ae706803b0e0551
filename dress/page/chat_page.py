"""The chat page itself: what stands where, and which method of the desk each control calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from dress.data.sources.photographs import read_photograph
from dress.errors import InputError, Reject
from dress.feedback.conversations import Answered
from dress.files import no_space
from dress.page import cards
from dress.page.controls import MOST_SAMPLES, OWN, Controls
from dress.page.desk import Desk, Drawn, Place
from dress.page.form import judged_of
from dress.page.server import uploaded

Updates = dict[Any, Any]
AT_ONCE = 16  # events of one kind that are worked on together

logger = logging.getLogger(__name__)


def sentence(error: Exception) -> str:
    """Say what went wrong in one sentence; of a fault of ours the log has more."""
    if isinstance(error, InputError | Reject):
        text = str(error).partition(": ")[2] if isinstance(error, Reject) else str(error)
        return text[:300]
    if full := no_space(error):
        return f"{full.filename or 'the folder'} cannot be written ({full.strerror}): make room."
    logger.exception("the chat page")
    return f"The model failed ({type(error).__name__}): the terminal of the page says more."


class ChatPage(Controls):
    """Serve the controls from a desk. `commands` say how to train on what was said."""

    def __init__(self, desk: Desk, *, commands: Sequence[str]) -> None:
        names = [speaker.name for speaker in desk.speakers]
        learned = any(s.assistant.condition.learned for s in desk.speakers)
        super().__init__(
            preset="best" if learned else "none",
            several=len(names) > 1,
            proposing=desk.annotator is not None,
            commands=commands,
        )
        self.desk = desk
        with self.blocks:
            self._connect()

    def _connect(self) -> None:
        shown = [
            self.place, self.history, self.columns, self.picture, self.questions, self.text,
            self.status, self.given, self.truth_box, self.truth, self.feedback, self.about,
            self.better, self.preset, *self.form.fields,
        ]  # fmt: skip

        def on(trigger: Any, handler: Callable[..., Any], inputs: Sequence[Any]) -> None:
            trigger(
                self._told(handler),
                [self.place, *inputs],
                shown,
                show_progress="hidden",
                concurrency_limit=AT_ONCE,
                api_visibility="private",
            )

        asking = [self.text, self.about, *self._settings]
        on(self.blocks.load, self._load, [self.blind, self.who])
        for trigger in (self.text.submit, self.send.click):
            on(trigger, self._send, asking)
        on(self.halt.click, self._stop, [])
        on(self.edit.click, self._edit, [self.blind, self.who])
        on(self.resend.click, self._resend, self._settings)
        on(self.fresh.click, self._fresh, [])
        on(self.draw.click, self._draw, [])
        on(self.upload.upload, self._upload, [self.upload])
        on(self.questions.input, self._choose, [self.questions])
        on(self.about.input, self._about, [self.about, self.blind, self.who])
        on(self.blind.input, self._load, [self.blind, self.who])
        judging = [self.about, self.who, *self.form.fields]
        said = [rating.input for rating in self.form.ratings]
        written = [box.blur for box in (*self.form.critiques, self.form.refinement)]
        for trigger in (self.save.click, *said, *written):
            on(trigger, self._judge, judging)
        on(self.hear.click, self._hear, [self.about, *self._settings, *self.form.fields])
        on(self.better.input, self._prefer, [self.better, self.who])
        on(self.propose.click, self._propose, [self.about])
        for level in self.levels:
            on(level.input, lambda place: {self.preset: OWN}, [])

    def _told(self, handler: Callable[..., Any]) -> Callable[..., Iterator[Updates]]:
        """Let a handler take a Place first, and end in a sentence where it fails."""

        @wraps(handler)
        def handle(told: Any, *values: Any) -> Iterator[Updates]:
            try:
                found = handler(Place.of(told), *values)
                yield from (found if isinstance(found, Iterator) else [found])
            except Exception as error:
                yield {self.status: cards.status(sentence(error))}

        return handle

    # What is shown

    def _view(self, place: Place, *, blind: bool, who: str, about: str = "") -> Updates:
        """Show a place as it is in the folder."""
        desk, conversation = self.desk, self.desk.conversation(place)
        asked = conversation.turns.get(place.turn)
        path = conversation.path(asked.parent) if asked else []
        turns: list[tuple[str, str | None]] = [(a.text, said.text) for a, said in path]
        turns += [(asked.text, None)] if asked else []
        answers = desk.answers(place)
        letters = [*cards.LETTERS[: len(answers)]]
        chosen = next((n for n, a in enumerate(answers) if a.answer == about), 0)
        judged = conversation.judged.get((answers[chosen].answer, who.strip())) if answers else None
        columns = [(_title(a, blind=blind), a.text) for a in answers]
        image = path[0][0].image if path else asked.image if asked else place.image
        several = len(answers) > 1
        letter = letters[chosen] if answers else None
        better = _better(conversation.preferred.values(), answers, who.strip())
        return {
            self.place: place.plain(),
            self.history: cards.history(turns),
            self.columns: cards.answers(columns, done=True) if answers else "",
            self.picture: cards.picture(desk.folder.image(image)) if image else cards.no_picture(),
            self.feedback: gr.update(visible=bool(answers)),
            self.about: gr.update(choices=letters, value=letter, visible=several),
            self.better: gr.update(choices=letters, value=better, visible=several),
            self.status: cards.status(""),
            **self._scene(place),
            **self.form.filled(judged),
        }

    def _scene(self, place: Place) -> Updates:
        drawn = Drawn.of(place.scene) if place.scene else None
        questions = [*drawn.questions] if drawn else []
        known = gr.update(choices=questions, value=None, visible=bool(drawn))
        truth = cards.facts(drawn.truth) if drawn else ""
        return {
            self.questions: known,
            self.truth_box: gr.update(visible=bool(drawn)),
            self.truth: truth,
        }

    def _answer(self, place: Place, letter: str | None) -> Answered:
        answers = self.desk.answers(place)
        if not answers:
            raise InputError("there is no answer yet: ask first.")
        number = cards.LETTERS.find(letter) if letter else 0
        return answers[number if 0 <= number < len(answers) else 0]

    # What is done

    def _load(self, place: Place, blind: bool, who: str) -> Updates:
        """Go on where the browser was; a page on which nothing was done yet stays as it is."""
        place = self.desk.opened(place)
        if not place.image and not place.turn:
            return {self.status: cards.status("")}
        return self._view(place, blind=blind, who=who)

    def _fresh(self, place: Place) -> Updates:
        new = Place.of(None)
        return {**self._view(new, blind=False, who=""), self.text: "", self.given: ""}

    def _draw(self, place: Place) -> Updates:
        place = self.desk.draw()
        return {
            **self._view(place, blind=False, who=""),
            self.text: next(iter(Drawn.of(place.scene).questions)),
        }

    def _upload(self, place: Place, path: str | None) -> Updates:
        if not path:
            raise InputError("no picture was given.")
        file = uploaded(path)
        try:
            place = self.desk.shown(read_photograph(file, key=Path(path).name[:80]))
        finally:
            file.unlink(missing_ok=True)
        return self._view(place, blind=False, who="")

    def _choose(self, place: Place, question: str | None) -> Updates:
        return {self.text: question} if question else {self.status: cards.status("")}

    def _about(self, place: Place, letter: str | None, blind: bool, who: str) -> Updates:
        answer = self._answer(place, letter).answer
        return self._view(place, blind=blind, who=who, about=answer)

    def _send(
        self, place: Place, text: str, letter: str | None, *settings: Any
    ) -> Iterator[Updates]:
        yield from self._ask(place, text, self._parent(place, letter), *settings)

    def _parent(self, place: Place, letter: str | None) -> str:
        """Return the answer that is followed: where the turn has none, that which it followed."""
        asked = self.desk.conversation(place).turns.get(place.turn)
        if asked and not self.desk.answers(place):
            return asked.parent
        return self._answer(place, letter).answer if asked else ""

    def _ask(self, place: Place, text: str, parent: str, *settings: Any) -> Iterator[Updates]:
        preset, *levels, temperature, samples, blind, who = settings
        target = "/".join(str(int(level)) for level in levels) if preset == OWN else preset
        count = min(int(samples), MOST_SAMPLES // len(self.desk.speakers))
        wished = {"target": target, "temperature": float(temperature), "samples": count}
        wish = self.desk.wish(place, text.strip(), parent, wished)
        named = ["" if blind else f"{s.name}\n" for s in self.desk.speakers]
        given = [f"{n}{s.given(wish)}" for n, s in zip(named, self.desk.speakers, strict=True)]
        turns = [(turn.user, turn.model) for turn in wish.turns]
        start = {
            self.history: cards.history(turns),
            self.given: cards.verbatim("\n\n".join(dict.fromkeys(given))),
            self.text: "",
            self.feedback: gr.update(visible=False),
            self.status: cards.status("answering"),
        }
        for now, columns in self.desk.ask(
            place, text, parent=parent, settings=wished, who=who.strip(), blind=blind
        ):
            if start:  # a page that is loaded again now, or a fault, has the turn already
                start[self.place] = now.plain()
            place = now
            shown = [("" if blind else name, answer) for name, answer in columns]
            yield {**start, self.columns: cards.answers(shown, done=False)}
            start = {}
        yield self._view(place, blind=blind, who=who)

    def _stop(self, place: Place) -> Updates:
        self.desk.stop(place)
        return {self.status: cards.status("stopped")}

    def _edit(self, place: Place, blind: bool, who: str) -> Updates:
        before, asked = self.desk.back(place)
        shown = self._view(before, blind=blind, who=who, about=asked.parent)
        return {**shown, self.text: asked.text}

    def _resend(self, place: Place, *settings: Any) -> Iterator[Updates]:
        before, asked = self.desk.back(place)
        yield from self._ask(before, asked.text, asked.parent, *settings)

    def _judge(self, place: Place, letter: str | None, who: str, *values: Any) -> Updates:
        answer = self._answer(place, letter).answer
        judged = self.form.judged(values, answer=answer, who=who.strip())
        before = self.desk.conversation(place).judged.get((answer, judged.who))
        said = judged.ratings or judged.critiques or judged.refinement
        if not said and before is None:
            return {self.status: cards.status("nothing to save yet")}
        self.desk.judge(place, judged)
        return {self.status: cards.status("saved")}

    def _hear(self, place: Place, letter: str | None, *values: Any) -> Iterator[Updates]:
        settings, fields = values[: len(self._settings)], values[len(self._settings) :]
        answer = self._answer(place, letter).answer
        judged = self.form.judged(fields, answer=answer, who=settings[-1].strip())
        if not judged.refinement:
            raise InputError("write a refinement first: what should be better.")
        self.desk.judge(place, judged)
        yield from self._ask(place, judged.refinement, answer, *settings)

    def _prefer(self, place: Place, letter: str | None, who: str) -> Updates:
        self.desk.prefer(place, self._answer(place, letter).answer, who=who.strip())
        return {self.status: cards.status("saved")}

    def _propose(self, place: Place, letter: str | None) -> Updates:
        answer = self._answer(place, letter).answer
        feedback = self.desk.propose(place, answer)
        proposed = self.form.filled(judged_of(feedback, answer=answer))
        return {**proposed, self.status: cards.status("proposed: correct it, then save")}


def _title(answer: Answered, *, blind: bool) -> str:
    stopped = " (stopped)" if answer.stopped else ""
    return stopped.strip() if blind else f"{answer.model}, {answer.target}{stopped}"


def _better(preferred: Any, answers: Sequence[Answered], who: str) -> str | None:
    chosen = [p.better for p in preferred if p.who == who]
    found = (
        letter for letter, a in zip(cards.LETTERS, answers, strict=False) if a.answer in chosen
    )
    return next(found, None)
