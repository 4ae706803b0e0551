"""Advice that is no reason to change a response."""

from __future__ import annotations

import random

from hypothesis import given
from worlds import scenes

from dress.records import sentences
from dress.world.advice import foreign_advice
from dress.world.questions import TASKS
from dress.world.scene import Scene
from dress.world.scene_oracle import Oracle


@given(scene=scenes())
def test_advice_on_another_scene_says_nothing_that_is_true(
    scene: Scene,
) -> None:
    for task in TASKS:
        given_first = foreign_advice(task, [scene] * 5, Oracle(), random.Random(0))
        if given_first is None:
            continue
        true = f"Look. {given_first}"
        others = foreign_advice(task, [scene] * 5, Oracle(), random.Random(0), true=true)
        assert others is not None and not sentences(others) & sentences(given_first)


def test_sentences_end_at_full_stops() -> None:
    text = "Look again for a red cross. What you named in the centre is not there. Really?  No!"
    assert sentences(text) == {
        "Look again for a red cross.",
        "What you named in the centre is not there.",
        "Really?",
        "No!",
    }
    assert sentences("") == set()
