"""The page of people who annotate: one answer after another, until nothing is left."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

import gradio as gr

from dress.errors import InputError
from dress.page import cards
from dress.page.chat_page import AT_ONCE, sentence
from dress.page.form import Form
from dress.page.queue import Item, Queue
from dress.page.server import UNUSED_S

Updates = dict[Any, Any]


class QueuePage:
    """`users` are passwords by name; without any, a name is enough."""

    def __init__(self, queue: Queue, *, users: Mapping[str, str]) -> None:
        self.queue, self.users = queue, users
        with gr.Blocks(
            title="DRESS annotation", analytics_enabled=False, delete_cache=UNUSED_S
        ) as self.blocks:
            self.current = gr.State("")
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    self.who = gr.Textbox(label="Your name", max_length=60, elem_id="who")
                    self.password = gr.Textbox(
                        label="Your password", type="password", visible=bool(users)
                    )
                    self.begin = gr.Button("Begin", variant="primary", size="sm")
                    self.picture = gr.HTML("")
                with gr.Column(scale=5, min_width=320):
                    self.history = gr.HTML("")
                    self.status = gr.HTML(cards.status("Give your name to begin."))
                    with gr.Column(visible=False) as self.judging:
                        self.form = Form.build()
                        self.submit = gr.Button("Submit and next", variant="primary", size="sm")
            shown = [self.current, self.picture, self.history, self.status, self.judging]
            settings: dict[str, Any] = {
                "outputs": [*shown, *self.form.fields],
                "show_progress": "hidden",
                "concurrency_limit": AT_ONCE,
                "api_visibility": "private",
            }
            person = [self.who, self.password]
            for trigger in (self.begin.click, self.who.submit, self.password.submit):
                trigger(self._begin, person, **settings)
            self.submit.click(self._submit, [*person, self.current, *self.form.fields], **settings)

    def _begin(self, who: str, password: str) -> Updates:
        try:
            return self._next(self._person(who, password), "")
        except Exception as error:
            return {self.status: cards.status(sentence(error))}

    def _submit(self, who: str, password: str, answer: str, *values: Any) -> Updates:
        try:
            person = self._person(who, password)
            self.queue.judge(self.form.judged(values, answer=answer, who=person))
            return self._next(person, "saved; ")
        except Exception as error:
            return {self.status: cards.status(sentence(error))}

    def _person(self, who: str, password: str) -> str:
        name = who.strip()
        known = self.users.get(name, "")
        if self.users and not (known and hmac.compare_digest(known.encode(), password.encode())):
            raise InputError("this name and password are not known here.")
        if not name:
            raise InputError("give your name first.")
        return name

    def _next(self, who: str, said: str) -> Updates:
        item = self.queue.next(who)
        done, total = self.queue.progress()
        left = f"{said}{done} of {total} answers are judged"
        if item is None:
            left += ": nothing is left for you. Thank you."
            return {
                self.current: "",
                self.judging: gr.update(visible=False),
                self.history: "",
                self.picture: "",
                self.status: cards.status(left),
            }
        return {**self._shown(item), self.status: cards.status(left), **self.form.filled(None)}

    def _shown(self, item: Item) -> Updates:
        return {
            self.current: item.answer,
            self.judging: gr.update(visible=True),
            self.history: cards.history([(t.user, t.model) for t in item.dialogue.turns]),
            self.picture: cards.picture(self.queue.folder.image(item.image)),
        }
