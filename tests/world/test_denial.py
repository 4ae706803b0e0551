"""Which statements a hint denies, and which hints are false, by responses written by hand."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from worlds import DESCRIBE, PERFECT, SCENE, asked, generators

from dress.world.denial import Statement, denied, stated
from dress.world.questions import Question, reference
from dress.world.scene_oracle import Oracle, false_hint

COUNT = Question("count", "How many crosses are there?", "1")
RELATION = Question("relation", "Is the red circle left or right of the blue square?", "left")
SIZE = Question("attribute", "What size is the object in the top left?", "small", SCENE.things[0])
RIGHT_OF = (
    "The red circle is in the top right and the blue square is in the centre, so it is right."
)


@pytest.mark.parametrize(
    ("question", "response", "statements"),
    [
        (COUNT, "There are two crosses.", {("answer", "2")}),
        (COUNT, "There is one cross.", set()),
        (RELATION, RIGHT_OF, {("answer", "right"), ("red", "circle", 2)}),
        (RELATION, "It is right.", {("answer", "right")}),
        (RELATION, "It is left.", set()),
        (SIZE, "There is in the top left a large red circle, so it is large.", set()),
        (DESCRIBE, PERFECT, set()),
        (DESCRIBE, "In the top right a small red circle.", {("red", "circle", 2)}),
        (DESCRIBE, "In the top left a large red circle.", {("red", "circle", "large")}),
        (DESCRIBE, "In the top right a cyan cross.", {("cyan", "cross", 2)}),
        (DESCRIBE, "A cyan cross.", set()),  # the hint names no place that could be denied
    ],
)
def test_what_the_hint_denies(
    question: Question, response: str, statements: set[Statement]
) -> None:
    assert denied(question, SCENE, response) == statements
    hint = Oracle().annotate(question, SCENE, response, rng=random.Random(0)).refinement
    assert any(word in hint for word in ("not", "no ", "fewer", "more")) == bool(statements) or (
        "You named something that is not there." in hint
    )
    assert denied(question, SCENE, response) <= stated(question, response)


def test_what_is_true_or_negated_is_not_stated_again() -> None:
    said = denied(DESCRIBE, SCENE, "In the top right a small red circle.")
    assert not said & stated(DESCRIBE, PERFECT)
    assert said & stated(DESCRIBE, "There is in the top right a large red circle.")
    assert not said & stated(DESCRIBE, "There is no red circle in the top right.")
    wrong = denied(RELATION, SCENE, RIGHT_OF)
    assert not wrong & stated(RELATION, "It is left.") and wrong & stated(RELATION, "It is right.")


@pytest.mark.parametrize(
    ("question", "response", "hints"),
    [
        (COUNT, "There are two crosses.", {"There are more crosses than that."}),
        (COUNT, "There are no crosses.", {"There are fewer crosses than that."}),
        (RELATION, RIGHT_OF, {"The red circle is not left of the blue square."}),
        (RELATION, "It is left.", {"The red circle is not left of the blue square."}),
        (
            SIZE,
            "It is large.",
            {f"Check the {name} of the object in the top left." for name in ("colour", "shape")},
        ),
        (SIZE, "It is small, that is.", {"Check the size of the object in the top left."}),
    ],
)
def test_a_false_hint_denies_the_truth(question: Question, response: str, hints: set[str]) -> None:
    told = {false_hint(question, SCENE, response, random.Random(seed)) for seed in range(40)}
    assert told == hints


@given(generators)
def test_no_false_hint_is_what_the_oracle_would_say(rng: random.Random) -> None:
    for scene, question in asked(20):
        response = reference(question, scene, rng)
        assert Oracle().annotate(question, scene, response, rng=rng).refinement == ""
        assert false_hint(question, scene, response, rng)
