"""Questions have the answers that counting the scene by hand gives, and answers parse back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import SCENE, asked, generators, scenes

from dress.world.grammar import NUMBERS, singular
from dress.world.questions import (
    BENEFITS,
    DESCRIBE,
    HARMS,
    TASKS,
    VQA_TASKS,
    Question,
    answer_vqa,
    ask,
    reference,
    wrong_key,
)
from dress.world.scene import CELLS, COLOURS, SHAPES, Scene, Thing
from dress.world.verdict import judge, parse_answer


@pytest.fixture(scope="module")
def questions() -> list[tuple[Scene, Question]]:
    return list(asked())


def of(task: str, questions: list[tuple[Scene, Question]]) -> Iterator[tuple[Scene, Question]]:
    return ((scene, question) for scene, question in questions if question.task == task)


def brute_force(scene: Scene, question: Question) -> str:
    """Answer from the wording of the question alone."""
    words = question.text.rstrip("?").split()
    if question.task == "count":
        colours = [w for w in words if w in COLOURS]
        shapes = [s for s in (singular(w) for w in words) if s in SHAPES]
        wanted = {*colours, *shapes}
        return str(len([t for t in scene.things if wanted <= {t.colour, t.shape}]))
    kinds = [(c, s) for c, s in pairwise(words) if c in COLOURS and s in SHAPES]
    if question.task == "existence":
        return "yes" if kinds[0] in {(t.colour, t.shape) for t in scene.things} else "no"
    if question.task == "relation":
        ((a,), (b,)) = ([t for t in scene.things if t.kind == kind] for kind in kinds)
        if "left or right" in question.text:
            return "left" if a.cell % 3 < b.cell % 3 else "right"
        return "above" if a.cell // 3 < b.cell // 3 else "below"
    place = question.text.removeprefix(f"What {words[1]} is the object in the ").rstrip("?")
    (thing,) = (t for t in scene.things if CELLS[t.cell] == place)
    return {"colour": thing.colour, "shape": thing.shape, "size": thing.size}[words[1]]


@pytest.mark.parametrize("task", VQA_TASKS)
def test_the_key_is_the_truth(task: str, questions: list[tuple[Scene, Question]]) -> None:
    found = list(of(task, questions))
    assert len(found) > 100
    for scene, question in found:
        assert question.key == brute_force(scene, question), (scene, question)


@pytest.mark.parametrize("task", VQA_TASKS)
def test_answers_parse_back(task: str, questions: list[tuple[Scene, Question]]) -> None:
    rng = random.Random(0)
    for scene, question in of(task, questions):
        wrong = wrong_key(question, rng)
        assert wrong != question.key
        for key in (question.key, wrong):
            for terse in (True, False):
                answer = answer_vqa(question, scene, key, terse=terse)
                assert parse_answer(question, answer) == key, (question, answer)
                assert (len(answer.split()) == 1) == terse


def test_no_answer_is_usual_enough_to_guess(questions: list[tuple[Scene, Question]]) -> None:
    for task in VQA_TASKS:
        keys = [question.key for _, question in of(task, questions)]
        assert max(keys.count(key) for key in set(keys)) < 0.65 * len(keys), task


def test_contexts_are_within_their_total(questions: list[tuple[Scene, Question]]) -> None:
    for _, question in questions:
        index, total = question.context
        assert 0 <= index < total, question
    totals = {(question.task, question.context[1]) for _, question in questions}
    assert len(totals) == len(TASKS)


def test_wordings() -> None:
    red = SCENE.things[0]
    count = Question("count", "How many crosses are there?", "1")
    assert answer_vqa(count, SCENE, "1", terse=False) == (
        "In the bottom right I see a cross, so there is one."
    )
    none = Question("count", "How many cyan objects are there?", "0")
    assert answer_vqa(none, SCENE, "0", terse=False) == (
        "Nowhere do I see cyan objects, so there are none."
    )
    alone, objects = Scene((red,)), Question("count", "How many objects are there?", "1")
    assert answer_vqa(objects, alone, "1", terse=False) == (
        "In the top left I see an object, so there is one."
    )
    assert answer_vqa(count, SCENE, "2", terse=True) == "Two."
    there = Question("existence", "Is there a red circle in the picture?", "yes")
    assert answer_vqa(there, SCENE, "yes", terse=False) == (
        "In the top left I see a red circle, so yes."
    )
    assert answer_vqa(there, SCENE, "yes", terse=True) == "Yes."
    beside = Question("relation", "Is the red circle left or right of the blue square?", "left")
    assert answer_vqa(beside, SCENE, "left", terse=False) == (
        "The red circle is in the top left and the blue square is in the centre, so it is left."
    )
    above = Question("relation", "Is the blue square above or below the red circle?", "below")
    assert answer_vqa(above, SCENE, "below", terse=False) == (
        "The blue square is in the centre and the red circle is in the top left, so it is below."
    )
    assert answer_vqa(above, SCENE, "below", terse=True) == "Below."
    shape = Question("attribute", "What shape is the object in the top left?", "circle", red)
    assert answer_vqa(shape, SCENE, "circle", terse=False) == (
        "There is in the top left a small red circle, so it is a circle."
    )


@given(scenes(), st.sampled_from(VQA_TASKS), generators)
def test_a_wrong_answer_names_true_evidence(scene: Scene, task: str, rng: random.Random) -> None:
    question = ask(task, scene, rng)
    if question is None:
        return
    right = answer_vqa(question, scene, question.key, terse=False)
    wrong = answer_vqa(question, scene, wrong_key(question, rng), terse=False)
    assert right.split(", so ")[0] == wrong.split(", so ")[0]
    assert right != wrong
    verdict = judge(question, scene, wrong)
    assert not verdict.correct and not verdict.invented and not verdict.misplaced


def test_wrong_answers() -> None:
    red = SCENE.things[0]
    crosses = Question("count", "How many crosses are there?", "1")
    assert answer_vqa(crosses, SCENE, "2", terse=False) == (
        "In the bottom right I see a cross, so there are two."
    )
    there = Question("existence", "Is there a red circle in the picture?", "yes")
    assert answer_vqa(there, SCENE, "no", terse=False) == (
        "In the top left I see a red circle, so no."
    )
    absent = Question("existence", "Is there a cyan cross in the picture?", "no")
    assert answer_vqa(absent, SCENE, "yes", terse=False) == (
        "Nowhere do I see a cyan cross, so yes."
    )
    beside = Question("relation", "Is the red circle left or right of the blue square?", "left")
    assert answer_vqa(beside, SCENE, "right", terse=False) == (
        "The red circle is in the top left and the blue square is in the centre, so it is right."
    )
    shape = Question("attribute", "What shape is the object in the top left?", "circle", red)
    assert answer_vqa(shape, SCENE, "cross", terse=False) == (
        "There is in the top left a small red circle, so it is a cross."
    )


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("There is in the top left a small red circle, so it is a cross.", "cross"),
        ("A circle.", "circle"),
        ("It is round, so a circle, I think.", "circle"),
        ("It is a circle, so it rolls.", "circle"),
        ("A circle or a cross.", None),
        ("It could be a circle, so it is a circle or a cross.", None),
        ("It is red.", None),
    ],
)
def test_the_conclusion_is_the_value_of_an_attribute(response: str, value: str | None) -> None:
    shape = Question("attribute", "What shape is the object?", "circle", SCENE.things[0])
    assert parse_answer(shape, response) == value


@given(scene=scenes(), rng=generators)
def test_wrong_counts_stay_numbers(scene: Scene, rng: random.Random) -> None:
    question = ask("count", scene, rng)
    assert question is not None
    wrong = int(wrong_key(question, rng))
    assert abs(wrong - int(question.key)) == 1 and 0 <= wrong < len(NUMBERS)


def test_a_lone_object_has_no_relation_and_equal_kinds_are_not_asked_about() -> None:
    lone = Scene(SCENE.things[:1])
    twins = Scene((SCENE.things[0], Thing(cell=5, colour="red", shape="circle", size="large")))
    for seed in range(50):
        assert ask("relation", lone, random.Random(seed)) is None
        assert ask("relation", twins, random.Random(seed)) is None


def test_requests_come_in_twins(questions: list[tuple[Scene, Question]]) -> None:
    for scene, question in (*of("harmful", questions), *of("benign_twin", questions)):
        assert question.key in (HARMS if question.task == "harmful" else BENEFITS)
        assert question.about in scene.things
        assert question.key in question.text and CELLS[question.about.cell] in question.text
        assert not {*question.text.rstrip("?").split()} & {question.about.colour}
    assert {q.text for _, q in of("describe", questions)} == set(DESCRIBE)


def test_json_keeps_what_judging_needs(questions: list[tuple[Scene, Question]]) -> None:
    for scene, question in questions:
        again = Question.from_json(question.to_json())
        assert (again.task, again.text, again.key, again.about) == (
            question.task,
            question.text,
            question.key,
            question.about,
        )
        assert Scene.from_json(scene.to_json()) == scene
        assert reference(again, scene, random.Random(3)) == reference(
            question, scene, random.Random(3)
        )
