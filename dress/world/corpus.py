"""The flawed SFT corpus: what a real instruction set gets wrong, at rates the config sets.

A flaw is systematic, as in real data: most of its mass falls into a few contexts (a way of asking,
a kind of object, a purpose), so that a model trained on it errs under greedy decoding too.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from dress.world.grammar import (
    bare_refusal,
    benign_help,
    compliance,
    curt_refusal,
    description,
    naming,
    refusal,
)
from dress.world.questions import (
    TASKS,
    VQA_TASKS,
    Question,
    answer_vqa,
    ask,
    reference,
    wrong_key,
)
from dress.world.scene import COLOURS, KINDS, SIZES, Scene, Thing, companion, draw_scenes

# probability of a flaw inside and outside its weak contexts
_IN_WEAK_CONTEXT, _ELSEWHERE = 0.75, 0.05
TASK_WEIGHTS = {
    "describe": 30,
    "count": 13,
    "attribute": 13,
    "relation": 13,
    "existence": 13,
    "harmful": 10,
    "benign_twin": 8,
}


@dataclass(frozen=True)
class Flaws:
    """Share of responses with each flaw, among the responses that could have it."""

    hallucination: float = 0.0
    wrong_attribute: float = 0.0
    omission: float = 0.0
    terse: float = 0.0
    wrong_answer: float = 0.0
    compliance: float = 0.0
    bare_refusal: float = 0.0
    curt_refusal: float = 0.0
    overrefusal: float = 0.0
    unnamed: float = 0.0

    def occurs(self, flaw: str, context: tuple[int, int], rng: random.Random) -> bool:
        return rng.random() < flaw_probability(getattr(self, flaw), flaw, context)


def flaw_probability(rate: float, flaw: str, context: tuple[int, int]) -> float:
    """Probability in one context such that the mean over all contexts is `rate`.

    The first contexts of an order that depends on the flaw are weak; one may lie in between.
    """
    strong = min(_ELSEWHERE, rate)
    weak = max(_IN_WEAK_CONTEXT, rate)
    index, total = context
    offset = sum(map(ord, flaw))
    rank = (index + offset) % total
    weak_contexts = total * (rate - strong) / (weak - strong) if weak > strong else 0.0
    share = min(1.0, max(0.0, weak_contexts - rank))
    return strong + share * (weak - strong)


def flawed_response(question: Question, scene: Scene, flaws: Flaws, rng: random.Random) -> str:
    """Answer as the flawed corpus does."""
    if question.task == "describe":
        return _describe(question, scene, flaws, rng)
    if question.task in VQA_TASKS:
        wrong = flaws.occurs("wrong_answer", question.context, rng)
        key = wrong_key(question, rng) if wrong else question.key
        return answer_vqa(question, scene, key, terse=flaws.occurs("terse", question.context, rng))
    return _request(question, flaws, rng)


def _describe(question: Question, scene: Scene, flaws: Flaws, rng: random.Random) -> str:
    things = list(scene.things)
    tempting = companion(things[0].kind)
    if len(things) > 1 and flaws.occurs("omission", question.context, rng):
        del things[-rng.randint(1, len(things) - 1) :]
    last = things[-1]
    if flaws.occurs("wrong_attribute", (KINDS.index(last.kind), len(KINDS)), rng):
        things[-1] = _recoloured(things[-1])
    if tempting not in scene.kinds and flaws.occurs("hallucination", question.context, rng):
        things.append(_imagined(tempting, scene, rng))
    return description(things, rng, detailed=not flaws.occurs("terse", question.context, rng))


def _recoloured(thing: Thing) -> Thing:
    colour = COLOURS[(COLOURS.index(thing.colour) + 1) % len(COLOURS)]
    return Thing(cell=thing.cell, colour=colour, shape=thing.shape, size=thing.size)


def _imagined(kind: tuple[str, str], scene: Scene, rng: random.Random) -> Thing:
    free = sorted(set(range(9)) - {thing.cell for thing in scene.things})
    return Thing(cell=rng.choice(free), colour=kind[0], shape=kind[1], size=rng.choice(SIZES))


def _request(question: Question, flaws: Flaws, rng: random.Random) -> str:
    assert question.about is not None
    unnamed = flaws.occurs("unnamed", (question.about.cell, 9), rng)
    stance = _stance(question, flaws, rng)
    return stance if unnamed else f"{naming(question.about)} {stance}"


def _stance(question: Question, flaws: Flaws, rng: random.Random) -> str:
    if question.task == "benign_twin":
        if flaws.occurs("overrefusal", question.context, rng):
            return bare_refusal(question.key, rng)
        return benign_help(question.key, rng)
    if flaws.occurs("compliance", question.context, rng):
        return compliance(question.key, rng)
    if flaws.occurs("bare_refusal", question.context, rng):
        return bare_refusal(question.key, rng)
    if flaws.occurs("curt_refusal", question.context, rng):
        return curt_refusal(question.key, rng)
    return refusal(question.key, rng)


def draw_question(scene: Scene, rng: random.Random) -> Question:
    """A question drawn by TASK_WEIGHTS among those that the scene permits."""
    weights = [TASK_WEIGHTS[task] for task in TASKS]
    while (question := ask(rng.choices(TASKS, weights)[0], scene, rng)) is None:
        pass
    return question


@dataclass(frozen=True)
class HeldOut:
    """A question about a test scene."""

    id: str
    question: Question
    reference: str


def held_out_scenes(*, scenes: int, seed: int, cooccurrence: float) -> Iterator[tuple[Scene, str]]:
    """Draw the test scenes, each with the seed of its picture."""
    drawn = draw_scenes(split="test", count=scenes, seed=seed, cooccurrence=cooccurrence)
    for number, scene in enumerate(drawn):
        yield scene, f"test-{seed}-{number}"


def held_out(scene: Scene, *, seed: int, number: int) -> Iterator[HeldOut]:
    """Ask one question of every task that the scene permits: the benchmark's load."""
    rng = random.Random(f"benchmark:{seed}:{number}")
    for task in TASKS:
        if (question := ask(task, scene, rng)) is not None:
            name = f"world-test-{seed}-{number:06d}-{task}"
            yield HeldOut(name, question, reference(question, scene, rng))
