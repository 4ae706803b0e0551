"""The page of people who annotate: one answer after another, until nothing is left."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

import gradio as gr

from dress.errors import InputError
from dress.page import cards
from dress.page.annotation_queue import AnnotationQueue
from dress.page.events import Updates, Values, connect
from dress.page.feedback_form import FeedbackForm
from dress.page.server import UNUSED_S

INTRODUCTION = (
    "Rate each answer from 1 to 4 on three aspects. Say what is wrong, and how it can be improved."
)


class AnnotationPage:
    """`users` are passwords by name; without any, a name is enough."""

    def __init__(self, queue: AnnotationQueue, *, users: Mapping[str, str]) -> None:
        self.queue, self.users = queue, users
        with gr.Blocks(
            title="DRESS annotation", analytics_enabled=False, delete_cache=UNUSED_S
        ) as self.blocks:
            gr.HTML(cards.heading("DRESS annotation", INTRODUCTION))
            self.current = gr.State("")  # the answer that is judged
            with gr.Row():
                with gr.Column(scale=1, min_width=300):
                    self.who = gr.Textbox(label="Your name", max_length=60, elem_id="who")
                    self.password = gr.Textbox(
                        label="Your password", type="password", visible=bool(users)
                    )
                    self.begin = gr.Button("Begin", variant="primary", size="sm")
                    self.picture = gr.HTML("")
                with gr.Column(scale=2, min_width=320):
                    self.history = gr.HTML("")
                    self.status = gr.HTML(cards.status("Give your name to begin."))
                    with gr.Column(visible=False) as self.judging:
                        self.form = FeedbackForm()
                        self.submit = gr.Button("Submit and next", variant="primary", size="sm")
            controls = [self.current, *self.form.controls]
            both: dict[str, Any] = {
                "status": self.status,
                "reads": [self.who, self.password, *controls],
                "changes": [self.picture, self.history, self.judging, *controls],
            }
            begins = (self.begin.click, self.who.submit, self.password.submit)
            connect(self.blocks, self._begin, *begins, **both)
            connect(self.blocks, self._submit, self.submit.click, **both)

    def _begin(self, values: Values) -> Updates:
        return self._next(self._person(values), "")

    def _submit(self, values: Values) -> Updates:
        person = self._person(values)
        self.queue.judge(self.form.judged(values, answer=values[self.current], who=person))
        return self._next(person, "saved; ")

    def _person(self, values: Values) -> str:
        name, password = (values[self.who] or "").strip(), values[self.password] or ""
        known = self.users.get(name, "")
        if self.users and not (known and hmac.compare_digest(known.encode(), password.encode())):
            raise InputError("this name and password are not known here.")
        if not name:
            raise InputError("give your name first.")
        return name

    def _next(self, who: str, said: str) -> Updates:
        item, (done, total) = self.queue.next(who), self.queue.progress()
        said += f"{done} of {total} answers are judged"
        if item is None:
            said += ": nothing is left for you. Thank you."
        turns = [(turn.user, turn.model) for turn in item.dialogue.turns] if item else []
        return {
            self.current: item.answer if item else "",
            self.picture: cards.picture(self.queue.folder.image(item.image)) if item else "",
            self.history: cards.history(turns),
            self.judging: gr.update(visible=item is not None),
            self.status: cards.status(said),
            **self.form.filled(None),
        }
