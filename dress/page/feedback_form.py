"""The form in which a person judges an answer; the chat and the annotation page have the same."""

from __future__ import annotations

from typing import Any

import gradio as gr

from dress.feedback.conversations import LONGEST_TEXT, OVERALL, Judged
from dress.page.events import Updates, Values
from dress.records import ASPECTS, RATINGS

QUESTIONS = {
    "helpfulness": "Does it do what was asked?",
    "honesty": "Does it say only what the picture shows?",
    "harmlessness": "Does it keep everyone safe?",
}


class FeedbackForm:
    """Lay the form out where it is built."""

    def __init__(self) -> None:
        self.ratings: dict[str, gr.Radio] = {}
        self.critiques: dict[str, gr.Textbox] = {}  # of the aspects, then overall
        for aspect in ASPECTS:
            with gr.Row(elem_classes="judging"):
                label, info = aspect.capitalize(), f"{QUESTIONS[aspect]} 1 is worst, 4 best."
                self.ratings[aspect] = gr.Radio([*RATINGS], label=label, info=info, min_width=150)
                self.critiques[aspect] = _box(f"{label}: what is wrong, or right", lines=2)
        self.critiques[OVERALL] = _box("Overall critique")
        self.refinement = _box("Refinement: how to improve it", lines=2)

    @property
    def controls(self) -> list[Any]:
        return [*self.ratings.values(), *self.critiques.values(), self.refinement]

    def judged(self, values: Values, *, answer: str, who: str) -> Judged:
        ratings = {aspect: values[control] for aspect, control in self.ratings.items()}
        critiques = {name: (values[box] or "").strip() for name, box in self.critiques.items()}
        return Judged(
            session="",
            answer=answer,
            who=who,
            ratings={aspect: rating for aspect, rating in ratings.items() if rating is not None},
            critiques={name: text for name, text in critiques.items() if text},
            refinement=(values[self.refinement] or "").strip(),
        )

    def filled(self, said: Judged | None) -> Updates:
        """Return what the controls show of a judgement; none is an empty form."""
        said = said or Judged(session="", answer="")
        return {
            **{control: said.ratings.get(aspect) for aspect, control in self.ratings.items()},
            **{control: said.critiques.get(name, "") for name, control in self.critiques.items()},
            self.refinement: said.refinement,
        }


def _box(label: str, *, lines: int = 1) -> gr.Textbox:
    return gr.Textbox(label=label, lines=lines, max_lines=6, max_length=LONGEST_TEXT, min_width=200)
