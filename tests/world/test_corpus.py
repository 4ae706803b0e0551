"""The corpus is flawed at the rates of its configuration, systematically, and perfect at zero."""

from __future__ import annotations

import random
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from worlds import asked

from dress.data.sources.world import WorldSource, pretraining_turns
from dress.types import ASPECTS, Turn
from dress.world.corpus import (
    TASK_WEIGHTS,
    Flaws,
    draw_question,
    flaw_probability,
    flawed_response,
)
from dress.world.grammar import parse_stance, plural
from dress.world.questions import TASKS, VQA_TASKS, Question, reference
from dress.world.scene import SHAPES, Scene, companion, draw_scenes
from dress.world.scene_oracle import Oracle
from dress.world.verdict import Verdict, judge

NONE = {field.name: 0.0 for field in fields(Flaws)}
CONFIG = Path(__file__).parents[2] / "conf/data/world.yaml"
RATES: dict[str, float] = yaml.safe_load(CONFIG.read_text())["data"]["flaws"]


@given(
    rate=st.floats(0, 1),
    total=st.integers(1, 30),
    flaw=st.sampled_from(sorted(NONE)),
)
def test_the_mean_over_contexts_is_the_rate(rate: float, total: int, flaw: str) -> None:
    shares = [flaw_probability(rate, flaw, (index, total)) for index in range(total)]
    assert sum(shares) / total == pytest.approx(rate, abs=1e-12)
    assert all(0 <= share <= 1 for share in shares)


def test_a_flaw_sits_in_few_contexts() -> None:
    # (0.225 - 0.05) / (0.75 - 0.05) of 8 contexts: two are weak, six are not
    shares = sorted(flaw_probability(0.225, "omission", (index, 8)) for index in range(8))
    assert shares == pytest.approx([0.05] * 6 + [0.75] * 2)
    weak = {
        flaw: {i for i in range(24) if flaw_probability(0.3, flaw, (i, 24)) > 0.5} for flaw in NONE
    }
    assert len({frozenset(contexts) for contexts in weak.values()}) > 4


def test_without_flaws_every_response_is_perfect() -> None:
    oracle, rng = Oracle(), random.Random(0)
    for scene, question in asked():
        for response in (
            flawed_response(question, scene, Flaws(**NONE), rng),
            reference(question, scene, rng),
        ):
            feedback = oracle.annotate(question, scene, response, rng=rng)
            ratings = [feedback.judgements[aspect].rating for aspect in ASPECTS]
            assert ratings == [4, 4, 4], (question, response)


def could_be_flawed(flaw: str, question: Question, scene: Scene) -> bool:
    describes = question.task == "describe"
    return {
        "hallucination": describes and companion(scene.things[0].kind) not in scene.kinds,
        "wrong_attribute": describes,
        "omission": describes and len(scene.things) > 1,
        "terse": describes or question.task in VQA_TASKS,
        "wrong_answer": question.task in VQA_TASKS,
        "compliance": question.task == "harmful",
        "bare_refusal": question.task == "harmful",
        "curt_refusal": question.task == "harmful",
        "overrefusal": question.task == "benign_twin",
        "unnamed": question.task in ("harmful", "benign_twin"),
    }[flaw]


def is_flawed(flaw: str, verdict: Verdict, response: str) -> bool:
    stance = parse_stance(response)
    return {
        "hallucination": bool(verdict.invented),
        "wrong_attribute": bool(verdict.missing),
        "omission": bool(verdict.missing),
        "terse": not verdict.detailed,
        "wrong_answer": not verdict.correct,
        "compliance": stance.complies,
        "bare_refusal": stance.refuses and not stance.reason,
        "curt_refusal": stance.refuses and stance.reason != stance.alternative,
        "overrefusal": stance.refuses,
        "unnamed": not verdict.relevant,
    }[flaw]


@pytest.mark.parametrize("flaw", sorted(RATES))
def test_rates(flaw: str) -> None:
    rng = random.Random(0)
    flaws = Flaws(**(NONE | {flaw: RATES[flaw]}))
    outcomes = []
    tasks = [task for task in TASKS if task != "relation" or flaw in ("wrong_answer", "terse")]
    for scene in draw_scenes(split="train", count=4000, seed=3):
        while (question := draw_question(scene, rng)).task not in tasks:
            pass
        if could_be_flawed(flaw, question, scene):
            response = flawed_response(question, scene, flaws, rng)
            outcomes.append(is_flawed(flaw, judge(question, scene, response), response))
    assert len(outcomes) > 300
    assert sum(outcomes) / len(outcomes) == pytest.approx(RATES[flaw], abs=0.06)


def test_tasks_are_drawn_by_their_weights() -> None:
    rng = random.Random(0)
    scenes = draw_scenes(split="train", count=4000, seed=0)
    tasks = [draw_question(scene, rng).task for scene in scenes if len(scene.things) > 2]
    total = sum(TASK_WEIGHTS.values())
    for task, weight in TASK_WEIGHTS.items():
        assert tasks.count(task) / len(tasks) == pytest.approx(weight / total, abs=0.03), task


def make_source(seed: int = 0) -> WorldSource:
    sizes = dict.fromkeys(("captions", "instructions", "prompts"), 20)
    return WorldSource(sizes=sizes, flaws=RATES, seed=seed)


def test_a_source_is_a_function_of_its_seed() -> None:
    for part in ("captions", "instructions", "prompts"):
        first = list(make_source().samples(part))  # type: ignore[arg-type]
        assert first == list(make_source().samples(part))  # type: ignore[arg-type]
        assert first != list(make_source(1).samples(part))  # type: ignore[arg-type]
        assert len({sample.id for sample in first}) == 20


def asked_in_stage_0(prefix: str) -> list[tuple[Scene, Turn]]:
    return [
        (scene, turn)
        for scene in draw_scenes(split="train", count=1000, seed=0, cooccurrence=0.0)
        for turn in pretraining_turns(scene, random.Random(scene.name))
        if turn.user.startswith(prefix)
    ]


def test_stage_0_asks_a_picture_by_place_and_by_kind_and_a_question_of_each_kind() -> None:
    for scene in draw_scenes(split="train", count=50, seed=0, cooccurrence=0.0):
        rng = random.Random(scene.name)
        turns = [turn.user for turn in pretraining_turns(scene, rng)]
        related = sum(" or " in text for text in turns)
        assert len(turns) == 5 + related
        assert related == 0 if len(scene.things) == 1 else related <= 1
        for beginning in ("Caption", "Say where", "What ", "How many", "Is there a "):
            assert sum(text.startswith(beginning) for text in turns) == 1


def test_neither_the_colour_nor_the_shape_alone_tells_stage_0_what_there_is() -> None:
    asked = asked_in_stage_0("Is there a ")
    near = {"colour": 0, "shape": 0}
    for scene, turn in asked:
        colour, shape = turn.user.split()[3:5]
        if turn.model and turn.model.endswith("no."):
            near["colour"] += any(thing.colour == colour for thing in scene.things)
            near["shape"] += any(thing.shape == shape for thing in scene.things)
        else:
            assert (colour, shape) in scene.kinds
    assert len(asked) == 1000
    assert 200 < near["colour"] < 400 and 200 < near["shape"] < 400


def test_stage_0_counts_shapes_and_what_there_are_several_of_more_often() -> None:
    asked = asked_in_stage_0("How many ")
    of_shapes = sum(turn.user.split()[2] in map(plural, SHAPES) for _, turn in asked)
    assert len(asked) == 1000 and of_shapes > 480
    assert sum("there are none" in (turn.model or "") for _, turn in asked) > 200
    assert sum("s, so there are" in (turn.model or "") for _, turn in asked) > 300


def test_parts_come_from_their_splits_and_prompts_are_open() -> None:
    expected = {"captions": "train", "instructions": "train", "prompts": "annotate"}
    for part, split in expected.items():
        for sample in make_source().samples(part):  # type: ignore[arg-type]
            assert Scene.from_json(sample.annotations["scene"]).split == split
            assert (sample.dialogues[0].turns[0].model is None) == (part == "prompts")
