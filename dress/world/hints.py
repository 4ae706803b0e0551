"""What a user says of a wrong answer or place: which one it is, never what would be right."""

from __future__ import annotations

from dress.world.language import SIDES, Mention, kind_phrase
from dress.world.questions import Question, related
from dress.world.scene import CELLS, Thing


def answer_hint(question: Question, answer: str | None) -> str:
    """The refinement of a wrong `answer` to a count, attribute, relation or existence question.

    It names what the question asks about, so that it fits no other question; a wrong count hears
    on which side of the truth it lies. `answer` is None where no value was found in the response.
    """
    if question.task == "count":
        counted = question.text.removeprefix("How many ").removesuffix(" are there?")
        if answer is None:
            return f"Say how many {counted} there are."
        return f"There are {_side(answer, question.key)} {counted} than that."
    if question.task == "attribute":
        assert question.about is not None
        attribute = question.text.split()[1]
        return f"Check the {attribute} of the object in the {CELLS[question.about.cell]}."
    if question.task == "existence":
        kind = question.text.removeprefix("Is there a ").removesuffix(" in the picture?")
        return f"Look again for a {kind}."
    one, other = related(question.text)
    if answer is None:
        return f"Say where the {one} and the {other} are."
    return f"The {one} is not {answer}{' of' if answer in SIDES[0] else ''} the {other}."


def place_hint(mention: Mention, thing: Thing) -> str:
    """The refinement of a mention whose kind is there, but not at that place or of that size."""
    kind = kind_phrase(mention.kind)
    if mention.cell is not None and mention.cell != thing.cell:
        return f"There is no {kind} in the {CELLS[mention.cell]}."
    where = "" if mention.cell is None else f" in the {CELLS[mention.cell]}"
    return f"The {kind}{where} is not {mention.size}."


def _side(answer: str, key: str) -> str:
    return "more" if int(answer) < int(key) else "fewer"
