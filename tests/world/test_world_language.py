"""The parser inverts the grammar."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import PERFECT, SCENE, generators, scenes

from dress.world.grammar import (
    LEADS,
    NUMBERS,
    Mention,
    caption,
    description,
    kind_phrase,
    parse_mentions,
    parse_number,
    parse_side,
    parse_word,
    parse_yes_no,
    plural,
    singular,
)
from dress.world.scene import CELLS, COLOURS, KINDS, SHAPES, SIZES, Scene, Thing


def mentions_of(scene: Scene, *, detailed: bool = True) -> list[Mention]:
    return [
        Mention(t.colour, t.shape, t.size if detailed else None, t.cell if detailed else None)
        for t in scene.things
    ]


@given(scene=scenes(), rng=generators)
def test_a_description_gives_back_its_things(scene: Scene, rng: random.Random) -> None:
    assert parse_mentions(description(scene.things, rng)) == mentions_of(scene)
    plain = description(scene.things, rng, detailed=False)
    assert parse_mentions(plain) == mentions_of(scene, detailed=False)


@given(scene=scenes())
def test_a_caption_gives_back_its_things(scene: Scene) -> None:
    assert parse_mentions(caption(scene.things)) == mentions_of(scene)


def test_every_thing_that_can_be() -> None:
    rng = random.Random(0)
    for cell, (colour, shape), size in product(range(9), KINDS, SIZES):
        scene = Scene((Thing(cell=cell, colour=colour, shape=shape, size=size),))
        assert parse_mentions(description(scene.things, rng)) == mentions_of(scene)
        assert parse_mentions(caption(scene.things)) == mentions_of(scene)


def test_wordings_are_varied() -> None:
    texts = {description(SCENE.things, random.Random(seed)) for seed in range(200)}
    assert PERFECT in texts
    assert {lead for lead in LEADS if any(t.startswith(lead) for t in texts)} == set(LEADS)
    assert len(texts) == 2 * len(LEADS)
    assert len({t.count(". Then") for t in texts}) == 2
    assert description((), random.Random(0)) == "I can see nothing."


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("", []),
        ("I can see nothing.", []),
        ("No, there is no red circle.", [Mention("red", "circle", negated=True)]),
        ("It is not a red circle.", [Mention("red", "circle", negated=True)]),
        (
            "There is no red circle but a blue cross.",
            [Mention("red", "circle", negated=True), Mention("blue", "cross")],
        ),
        ("two RED circles", [Mention("red", "circle")]),
        ("green crosses, cyan squares", [Mention("green", "cross"), Mention("cyan", "square")]),
        ("A large red circle at the top left.", [Mention("red", "circle", "large", 0)]),
        ("a red circle in the bottom centre", [Mention("red", "circle", None, 7)]),
        ("in the centre a small red circle", [Mention("red", "circle", "small", 4)]),
        ("in the top centre a small red circle", [Mention("red", "circle", "small", 1)]),
        ("Middle left: large red circle.", [Mention("red", "circle", "large", 3)]),
        ("a redder circle, a red circlet, an infrared circle", []),
        ("the circle is red", []),
    ],
)
def test_mentions(text: str, mentions: list[Mention]) -> None:
    assert parse_mentions(text) == mentions


@given(kind=st.sampled_from(KINDS))
def test_a_plural_names_its_kind_and_returns_to_the_singular(kind: tuple[str, str]) -> None:
    assert parse_mentions(plural(kind_phrase(kind))) == [Mention(*kind)]
    assert singular(plural(kind_phrase(kind))) == kind_phrase(kind)


def test_plurals() -> None:
    assert [plural(s) for s in SHAPES] == ["circles", "squares", "triangles", "crosses"]
    assert [singular(plural(s)) for s in (*SHAPES, "object")] == [*SHAPES, "object"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("There are two red objects.", 2), ("None.", 0), ("No crosses", 0), ("12", 12), ("Red", None)],
)
def test_numbers(text: str, number: int | None) -> None:
    assert parse_number(text) == number
    assert [parse_number(word.upper()) for word in NUMBERS] == list(range(10))


@pytest.mark.parametrize(
    ("text", "answer"),
    [("Yes.", "yes"), ("no, it is not", "no"), ("Not yes", None), ("", None), ("Nothing", None)],
)
def test_yes_and_no(text: str, answer: str | None) -> None:
    assert parse_yes_no(text) == answer


def test_the_side_that_is_concluded() -> None:
    seen = "The red circle is in the top left and the blue square is in the middle right"
    assert parse_side(f"{seen}, so it is left.", ("left", "right")) == "left"
    assert parse_side("Right.", ("left", "right")) == "right"
    assert parse_side(f"{seen}.", ("left", "right")) is None
    assert parse_side("It is above or below.", ("above", "below")) is None


def test_one_word_among_choices() -> None:
    assert parse_word("It is Red, so red.", COLOURS) == "red"
    assert parse_word("red or blue", COLOURS) is None
    assert parse_word("a redness", COLOURS) is None


def test_no_place_is_hidden_in_another_word() -> None:
    for cell, name in enumerate(CELLS):
        assert parse_mentions(f"in the {name} a small red circle")[0].cell == cell
        assert parse_mentions(f"a red circle in the {name}")[0].cell == cell


def test_a_statement_says_where_both_are() -> None:
    text = "The red circle is in the top left and the blue square is in the centre, so no."
    assert [(m.kind, m.cell) for m in parse_mentions(text)] == [
        (("red", "circle"), 0),
        (("blue", "square"), 4),
    ]
