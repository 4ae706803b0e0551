"""A hint names nothing that neither question nor response has named; a reveal tells."""

from __future__ import annotations

import random
import re

from hypothesis import given
from worlds import DESCRIBE, VALUES, asked, generators, scenes

from dress.records import BANK
from dress.types import Feedback
from dress.world.corpus import Flaws, flawed_response
from dress.world.grammar import NUMBERS, description, parse_mentions
from dress.world.questions import Question, answer_vqa, wrong_key
from dress.world.scene import CELLS, SIZES, Scene, Thing
from dress.world.scene_oracle import Oracle
from dress.world.verdict import judge

ALWAYS_FLAWED = Flaws(
    hallucination=0.6, wrong_attribute=0.6, omission=0.8, terse=0.5, wrong_answer=0.8, unnamed=0.7
)


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def refinements(feedback: Feedback) -> str:
    return " ".join(judgement.refinement for judgement in feedback.judgements.values())


def annotate(question: Question, scene: Scene, response: str, *, detail: str) -> Feedback:
    oracle = Oracle(detail=detail)  # type: ignore[arg-type]
    return oracle.annotate(question, scene, response, rng=random.Random(0))


@given(scene=scenes(), other=scenes(), rng=generators)
def test_a_hint_about_a_description_names_only_what_the_response_named(
    scene: Scene, other: Scene, rng: random.Random
) -> None:
    kept = rng.sample(scene.things, rng.randint(0, len(scene.things)))
    things = [*kept, *rng.sample(other.things, rng.randint(0, len(other.things)))]
    response = description(things, rng, detailed=rng.random() < 0.7)
    named = {m.kind for m in parse_mentions(response)}
    hinted = annotate(DESCRIBE, scene, response, detail="hint")
    assert {m.kind for m in parse_mentions(refinements(hinted))} <= named
    assert words(refinements(hinted)) & VALUES <= words(response) & VALUES
    assert not words(hinted.judgements["helpfulness"].refinement) & (VALUES | set(SIZES))
    missing = judge(DESCRIBE, scene, response).missing
    revealed = annotate(DESCRIBE, scene, response, detail="reveal")
    told = parse_mentions(revealed.judgements["helpfulness"].refinement)
    assert [(m.colour, m.shape, m.size, m.cell) for m in told] == [
        (t.colour, t.shape, t.size, t.cell) for t in missing
    ]


def test_a_hint_about_an_answer_does_not_hold_it() -> None:
    rng = random.Random(1)
    for scene, question in asked(60):
        if question.task not in ("count", "attribute", "relation", "existence"):
            continue
        for terse in (True, False):
            key = wrong_key(question, rng)
            response = answer_vqa(question, scene, key, terse=terse)
            hint = annotate(question, scene, response, detail="hint")
            said = words(hint.judgements["helpfulness"].refinement)
            values = VALUES | {*SIZES, *NUMBERS, "yes", "left", "right", "above", "below"}
            assert said and said & values <= words(question.text) - {question.key}
            reveal = annotate(question, scene, response, detail="reveal")
            assert question.key in reveal.judgements["helpfulness"].refinement


def test_hints_about_the_flawed_corpus_name_nothing_new() -> None:
    rng = random.Random(2)
    seen = 0
    for scene, question in asked(100):
        response = flawed_response(question, scene, ALWAYS_FLAWED, rng)
        hint = refinements(annotate(question, scene, response, detail="hint"))
        named = words(response) | words(question.text)
        assert words(hint) & VALUES <= named, (question, response, hint)
        seen += bool(hint)
    assert seen > 200


def test_the_bank_names_nothing_of_a_scene() -> None:
    scene_words = {*VALUES, *SIZES, *" ".join(CELLS).split(), "object", "objects"}
    scene_words |= set(NUMBERS[2:])
    for ratings in BANK.values():
        for sentence in ratings.values():
            assert not words(sentence) & scene_words, sentence
            assert not parse_mentions(sentence)


def test_a_reveal_says_what_is_true_of_what_was_placed_wrongly() -> None:
    twins = (
        Thing(cell=2, colour="red", shape="cross", size="small"),
        Thing(cell=7, colour="red", shape="cross", size="large"),
    )
    response = "There is in the bottom centre a small red cross and in the top left a red cross."
    revealed = annotate(DESCRIBE, Scene(twins), response, detail="reveal")
    assert revealed.judgements["honesty"].refinement == (
        "The red cross in the bottom centre is large. The red cross in the top right is small."
    )
