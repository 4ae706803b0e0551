"""The chat page itself: which method each control calls, and what it then shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any

from gradio import update

from dress.data.sources.photographs import read_photograph
from dress.errors import InputError
from dress.feedback.conversations import Answered
from dress.page import cards
from dress.page.chat_layout import MOST_SAMPLES, OWN, ChatLayout
from dress.page.chat_service import ChatService, DrawnScene, TabState, new_tab
from dress.page.events import Updates, Values, connect
from dress.page.server import uploaded

Handler = Callable[[TabState, Values], Updates | Iterator[Updates]]


class ChatPage(ChatLayout):
    """Serve the controls from a service. `commands` say how to train on what was said."""

    def __init__(self, service: ChatService, *, commands: Sequence[str]) -> None:
        learned = any(s.assistant.condition.learned for s in service.streamers)
        super().__init__(
            preset="best" if learned else "none",
            several=len(service.streamers) > 1,
            proposing=service.annotator is not None,
            commands=commands,
        )
        self.service = service
        with self.blocks:
            self._connect()

    def _connect(self) -> None:
        reads = [
            self.tab, self.text, self.preset, *self.levels, self.temperature, self.samples,
            self.blind, self.who, self.about, self.better, *self.form.controls,
        ]  # fmt: skip
        changes = [
            self.tab, self.history, self.columns, self.picture, self.questions, self.text,
            self.prompt, self.truth_box, self.truth, self.feedback, self.about, self.better,
            self.preset, *self.form.controls,
        ]  # fmt: skip

        def on(handler: Handler, *triggers: Any, also: Sequence[Any] = ()) -> None:
            @wraps(handler)
            def method(values: Values) -> Updates | Iterator[Updates]:
                return handler(TabState.read(values[self.tab]), values)

            read = [*reads, *also]
            connect(self.blocks, method, *triggers, reads=read, changes=changes, status=self.status)

        on(self._load, self.blocks.load, self.blind.input)
        on(self._fresh, self.fresh.click)
        on(self._draw, self.draw.click)
        on(self._upload, self.upload.upload, also=[self.upload])
        on(self._choose, self.questions.change, also=[self.questions])  # input is at each blur
        on(self._own, *(level.input for level in self.levels))
        on(self._send, self.text.submit, self.send.click)
        on(self._stop, self.halt.click)
        on(self._edit, self.edit.click)
        on(self._ask_again, self.resend.click)
        on(self._about, self.about.input)
        on(self._prefer, self.better.input)
        said = [rating.input for rating in self.form.ratings.values()]
        written = [box.blur for box in (*self.form.critiques.values(), self.form.refinement)]
        on(self._judge, self.save.click, *said, *written)
        on(self._send_refinement, self.send_refinement.click)
        on(self._propose, self.propose.click)

    # What is shown

    def _view(self, tab: TabState, values: Values, *, about: str = "") -> Updates:
        """Show a tab as it is in the folder, with the form of the answer `about`."""
        conversation, answers = self.service.conversation(tab), self.service.answers(tab)
        asked = conversation.turns.get(tab.turn)
        path = conversation.path(asked.parent) if asked else []
        turns: list[tuple[str, str | None]] = [(a.text, said.text) for a, said in path]
        turns += [(asked.text, None)] if asked else []
        image = path[0][0].image if path else asked.image if asked else tab.image
        names, who = [a.answer for a in answers], self._who(values)
        chosen = about if about in names else next(iter(names), None)
        judged = conversation.judged.get((chosen, who)) if chosen else None
        preferred = (p.better for p in conversation.preferred.values() if p.who == who)
        better = next((name for name in preferred if name in names), None)
        named = better is not None or not values[self.blind]
        lettered = [*zip(cards.LETTERS, names, strict=False)]
        shown = {"choices": lettered, "visible": len(names) > 1}
        return {
            self.tab: tab.to_json(),
            self.history: cards.history(turns),
            self.columns: _columns(answers, named=named),
            self.picture: cards.picture(self.service.folder.image(image) if image else None),
            self.feedback: update(visible=bool(answers)),
            self.about: update(**shown, value=chosen),
            self.better: update(**shown, value=better),
            self.status: cards.status(""),
            **self._scene(tab),
            **self.form.filled(judged),
        }

    def _scene(self, tab: TabState) -> Updates:
        drawn = DrawnScene.of(tab.scene) if tab.scene else None
        questions = [*drawn.questions] if drawn else []
        return {
            self.questions: update(choices=questions, value=None, visible=bool(drawn)),
            self.truth_box: update(visible=bool(drawn)),
            self.truth: cards.facts(drawn.truth) if drawn else "",
        }

    def _who(self, values: Values) -> str:
        return (values[self.who] or "").strip()

    def _answer(self, tab: TabState, chosen: str | None) -> str:
        """Return the answer to the newest turn that was chosen, or the first."""
        names = [a.answer for a in self.service.answers(tab)]
        if not names:
            raise InputError("there is no answer yet: ask first.")
        return chosen if chosen in names else names[0]

    # What is done

    def _load(self, tab: TabState, values: Values) -> Updates:
        """Go on where the browser was; a page on which nothing was done yet stays as it is."""
        tab = self.service.opened(tab)
        if not tab.image and not tab.turn:
            return {self.status: cards.status("")}
        return self._view(tab, values)

    def _fresh(self, tab: TabState, values: Values) -> Updates:
        return {**self._view(new_tab(), values), self.text: "", self.prompt: ""}

    def _draw(self, tab: TabState, values: Values) -> Updates:
        tab = self.service.draw()
        question = next(iter(DrawnScene.of(tab.scene).questions))
        return {**self._view(tab, values), self.text: question}

    def _upload(self, tab: TabState, values: Values) -> Updates:
        file = uploaded(values[self.upload])
        try:
            tab = self.service.upload(read_photograph(file, key=file.name[:80]))
        finally:
            file.unlink(missing_ok=True)
        return self._view(tab, values)

    def _choose(self, tab: TabState, values: Values) -> Updates:
        return {self.text: values[self.questions] or update()}

    def _own(self, tab: TabState, values: Values) -> Updates:
        return {self.preset: OWN}

    def _send(self, tab: TabState, values: Values) -> Iterator[Updates]:
        asked = self.service.conversation(tab).turns.get(tab.turn)
        parent = asked.parent if asked else ""
        if self.service.answers(tab):  # after a fault there is none: what it followed is followed
            parent = self._answer(tab, values[self.about])
        yield from self._ask(tab, values, values[self.text] or "", parent)

    def _ask(self, tab: TabState, values: Values, text: str, parent: str) -> Iterator[Updates]:
        streamers, blind, who = self.service.streamers, values[self.blind], self._who(values)
        levels = "/".join(str(int(values[level])) for level in self.levels)
        settings = {
            "target": levels if values[self.preset] == OWN else str(values[self.preset]),
            "temperature": float(values[self.temperature]),
            "samples": min(int(values[self.samples]), MOST_SAMPLES // len(streamers)),
        }
        request = self.service.request(tab, text, parent, settings)
        prompts = [("" if blind else f"{s.name}\n") + s.prompt_text(request) for s in streamers]
        start: Updates = {
            self.history: cards.history([(turn.user, turn.model) for turn in request.turns]),
            self.prompt: cards.verbatim("\n\n".join(dict.fromkeys(prompts))),
            self.text: "",
            self.feedback: update(visible=False),
            self.status: cards.status("answering"),
        }
        now = tab
        for now, columns in self.service.ask(tab, request, who=who, blind=blind):
            if start:  # a page that is loaded again now, or a fault, has the turn already
                start[self.tab] = now.to_json()
            shown = [("" if blind else name, answer) for name, answer in columns]
            yield {**start, self.columns: cards.answers(shown, done=False)}
            start = {}
        yield self._view(now, values)

    def _stop(self, tab: TabState, values: Values) -> Updates:
        self.service.stop(tab)
        return {self.status: cards.status("stopped")}

    def _edit(self, tab: TabState, values: Values) -> Updates:
        before, asked = self.service.back(tab)
        return {**self._view(before, values, about=asked.parent), self.text: asked.text}

    def _ask_again(self, tab: TabState, values: Values) -> Iterator[Updates]:
        before, asked = self.service.back(tab)
        yield from self._ask(before, values, asked.text, asked.parent)

    def _about(self, tab: TabState, values: Values) -> Updates:
        return self._view(tab, values, about=self._answer(tab, values[self.about]))

    def _prefer(self, tab: TabState, values: Values) -> Updates:
        better = self._answer(tab, values[self.better])
        self.service.prefer(tab, better, who=self._who(values))
        named = _columns(self.service.answers(tab), named=True)
        return {self.columns: named, self.status: cards.status("saved")}

    def _judge(self, tab: TabState, values: Values) -> Updates:
        answer, who = self._answer(tab, values[self.about]), self._who(values)
        judged = self.form.judged(values, answer=answer, who=who)
        is_empty = not (judged.ratings or judged.critiques or judged.refinement)
        if is_empty and (answer, who) not in self.service.conversation(tab).judged:
            return {self.status: cards.status("nothing to save yet")}
        self.service.judge(tab, judged)
        return {self.status: cards.status("saved")}

    def _send_refinement(self, tab: TabState, values: Values) -> Iterator[Updates]:
        answer = self._answer(tab, values[self.about])
        judged = self.form.judged(values, answer=answer, who=self._who(values))
        if not judged.refinement:
            raise InputError("write a refinement first: what should be better.")
        self.service.judge(tab, judged)
        yield from self._ask(tab, values, judged.refinement, answer)

    def _propose(self, tab: TabState, values: Values) -> Updates:
        proposed = self.service.propose(tab, self._answer(tab, values[self.about]))
        said = cards.status("proposed: correct it, then save")
        return {**self.form.filled(proposed), self.status: said}


def _columns(answers: Sequence[Answered], *, named: bool) -> str:
    columns = []
    for a in answers:
        stopped = " (stopped)" if a.stopped else ""
        columns.append((f"{a.model}, {a.target}{stopped}" if named else stopped.strip(), a.text))
    return cards.answers(columns, done=True) if columns else ""
