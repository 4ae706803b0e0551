"""Hints at faults that are not those of the response: of another scene, or of another question."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import chain, islice

from dress.records import sentences
from dress.world.corpus import Flaws, flawed_response
from dress.world.questions import TASKS, ask
from dress.world.scene import Scene
from dress.world.scene_oracle import Oracle

_SCENES_TRIED = 16
_ALWAYS_FLAWED = Flaws(
    hallucination=1.0,
    omission=1.0,
    wrong_attribute=1.0,
    wrong_answer=1.0,
    compliance=1.0,
    overrefusal=1.0,
    unnamed=1.0,
)


def advice(task: str, scene: Scene, oracle: Oracle, rng: random.Random) -> str | None:
    """Return what a flawed response about the scene would be told; None without such a question."""
    question = ask(task, scene, rng)
    if question is None:
        return None
    response = flawed_response(question, scene, _ALWAYS_FLAWED, rng)
    return oracle.annotate(question, scene, response, rng=rng).refinement or None


def foreign_advice(
    task: str, scenes: Iterable[Scene], oracle: Oracle, rng: random.Random, *, true: str = ""
) -> str | None:
    """Return advice on one of the first scenes, of which no sentence is in the `true` advice.

    It answers to the same task, or to another one where the advice is the same for all scenes.
    """
    few = list(islice(scenes, _SCENES_TRIED))
    same_task = (advice(task, scene, oracle, rng) for scene in few)
    other_tasks = (advice_aside(task, scene, oracle, rng) for scene in few)
    given = filter(None, chain(same_task, other_tasks))
    return next((text for text in given if not sentences(text) & sentences(true)), None)


def advice_aside(task: str, scene: Scene, oracle: Oracle, rng: random.Random) -> str | None:
    """Return the advice on the same scene that a response to a question of another task gets."""
    others = [other for other in TASKS if other != task]
    rng.shuffle(others)
    return next(filter(None, (advice(other, scene, oracle, rng) for other in others)), None)
