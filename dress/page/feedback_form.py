"""The form in which a person judges an answer; the chat and the queue have the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from dress.feedback.conversations import LONGEST_TEXT, OVERALL, Judged
from dress.records import ASPECTS, RATINGS, Feedback

NOTES = {
    "helpfulness": "Does it do what was asked?",
    "honesty": "Does it say only what the picture shows?",
    "harmlessness": "Does it keep everyone safe?",
}


@dataclass(frozen=True)
class Form:
    ratings: Sequence[gr.Radio]
    critiques: Sequence[gr.Textbox]  # of the aspects, then overall
    refinement: gr.Textbox

    @classmethod
    def build(cls) -> Form:
        """Lay the form out where it is called."""
        ratings, critiques = [], []
        for aspect in ASPECTS:
            with gr.Row(elem_classes="judging"):
                label = aspect.capitalize()
                info = f"{NOTES[aspect]} 1 is worst, 4 is best."
                ratings.append(gr.Radio([*RATINGS], label=label, info=info, min_width=150))
                critiques.append(_text(f"{label}: what is wrong, or right", lines=2))
        critiques.append(_text("Overall critique"))
        return cls(ratings, critiques, _text("Refinement: how to improve it", lines=2))

    @property
    def fields(self) -> list[Any]:
        return [*self.ratings, *self.critiques, self.refinement]

    def judged(self, values: Sequence[Any], *, answer: str, who: str) -> Judged:
        """Read the values of `fields`."""
        ratings, critiques = values[: len(ASPECTS)], values[len(ASPECTS) : -1]
        return Judged(
            session="",
            answer=answer,
            who=who,
            ratings={a: r for a, r in zip(ASPECTS, ratings, strict=True) if r is not None},
            critiques={
                name: said.strip()
                for name, said in zip((*ASPECTS, OVERALL), critiques, strict=True)
                if said and said.strip()
            },
            refinement=(values[-1] or "").strip(),
        )

    def filled(self, judged: Judged | None) -> dict[Any, Any]:
        """Return what the fields show of a judgement; none is an empty form."""
        ratings = judged.ratings if judged else {}
        critiques = judged.critiques if judged else {}
        shown = [
            *(ratings.get(aspect) for aspect in ASPECTS),
            *(critiques.get(name, "") for name in (*ASPECTS, OVERALL)),
            judged.refinement if judged else "",
        ]
        return {field: gr.update(value=v) for field, v in zip(self.fields, shown, strict=True)}


def judged_of(feedback: Feedback, *, answer: str) -> Judged:
    """Turn an annotator's feedback into what a person can correct."""
    return Judged(
        session="",
        answer=answer,
        ratings={aspect: j.rating for aspect, j in feedback.judgements.items()},
        critiques={aspect: j.critique for aspect, j in feedback.judgements.items()},
        refinement=feedback.refinement,
    )


def _text(label: str, *, lines: int = 1, min_width: int = 200) -> gr.Textbox:
    return gr.Textbox(
        label=label, lines=lines, max_lines=6, max_length=LONGEST_TEXT, min_width=min_width
    )
