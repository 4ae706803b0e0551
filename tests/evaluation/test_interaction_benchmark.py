"""Turns of feedback on responses written by hand: what the user says, and what counts."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from dress.errors import InputError
from dress.evaluation.benchmark import Example, Labels
from dress.evaluation.benchmarks.interaction import InteractionBenchmark
from dress.evaluation.benchmarks.world import truth
from dress.evaluation.statistics import bootstrap, pool
from dress.types import Turn
from dress.world.questions import Question, reference
from dress.world.scene import Scene, Thing

SCENE = Scene(
    (
        Thing(cell=0, colour="red", shape="circle", size="small"),
        Thing(cell=4, colour="blue", shape="square", size="large"),
    )
)
COUNT = Question("count", "How many objects are there?", "2")
OTHER = "You left out something in the top right."
EXAMPLE = Example(
    id="a",
    cluster="a",
    images=(b"",),
    question=COUNT.text,
    answer="There are two objects.",
    annotations={
        "scene": SCENE.to_json(),
        "question": COUNT.to_json(),
        "other_feedback": OTHER,
    },
)
RIGHT, WRONG, TERSE = "There are two objects.", "There are three objects.", "Two."
HINT = "There are fewer objects than that."


def benchmark(**options: object) -> InteractionBenchmark:
    return InteractionBenchmark(scenes=2, **options)  # type: ignore[arg-type]


def turns(*responses: str) -> list[Turn]:
    return [Turn("user", response) for response in responses]


@pytest.mark.parametrize(
    ("responses", "said"),
    [
        ((WRONG,), HINT),
        ((WRONG, WRONG), HINT),
        ((TERSE,), "Answer in a full sentence."),
        ((WRONG, RIGHT), None),  # all is well: nothing left to say
        ((RIGHT,), OTHER),  # meant for another scene
        ((RIGHT, WRONG), None),  # once only
        ((RIGHT, RIGHT), None),
    ],
)
def test_what_the_user_says(responses: tuple[str, ...], said: str | None) -> None:
    assert benchmark().reply(EXAMPLE, turns(*responses)) == said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"detail": "reveal"}, "The answer is 2."),
        ({"feedback": "other"}, OTHER),
        ({"feedback": "empty"}, ""),
        ({"feedback": "repeat"}, COUNT.text),
    ],
)
def test_controls_replace_what_a_faulty_response_hears(options: dict[str, str], said: str) -> None:
    assert benchmark(**options).reply(EXAMPLE, turns(WRONG)) == said
    assert benchmark(**options).reply(EXAMPLE, turns(RIGHT)) == OTHER


def test_an_unknown_control_names_the_choices() -> None:
    with pytest.raises(InputError, match="feedback is 'shout': choose oracle or other or empty or"):
        benchmark(feedback="shout")


@pytest.mark.parametrize(
    ("responses", "right", "extra"),
    [
        ((WRONG, RIGHT), "01111", {"repaired": 1, "fixed_1": 1, "broken_1": 0}),
        ((RIGHT, WRONG), "11111", {"overcorrection": 1}),
        ((RIGHT, RIGHT), "11111", {"overcorrection": 0}),
        (
            (WRONG, WRONG, TERSE, WRONG, RIGHT),  # perfect only after the fourth turn of feedback
            "00101",
            {
                "repaired": 0,
                **{"fixed_1": 0, "fixed_2": 0, "fixed_3": 0, "fixed_4": 1},
                **{"broken_1": 0, "broken_2": 0, "broken_3": 1, "broken_4": 0},
            },
        ),
    ],
)
def test_labels(responses: tuple[str, ...], right: str, extra: dict[str, int]) -> None:
    labels = dict(benchmark().labels(EXAMPLE, turns(*responses)))
    for number, digit in enumerate(right):
        for name in ("count", "vqa_accuracy"):
            assert labels.pop(f"turn_{number}/{name}") == (int(digit), 1)
    assert labels == {name: (value, 1) for name, value in extra.items()}


def scores(respond: Callable[[Example, list[Turn]], str]) -> dict[str, float]:
    """Metrics of a model that answers by a function of the dialogue so far."""
    bench = InteractionBenchmark(scenes=40)
    clusters: list[str] = []
    rows: list[Labels] = []
    for example in bench.examples():
        dialogue = [Turn(example.question, respond(example, []))]
        while len(dialogue) < bench.max_turns and (said := bench.reply(example, dialogue)):
            dialogue.append(Turn(said, respond(example, dialogue)))
        clusters.append(example.cluster)
        rows.append(bench.labels(example, dialogue))
    return bootstrap(pool(clusters, rows), bench.metrics)


def perfect(example: Example) -> str:
    scene, question = truth(example)
    return reference(question, scene, random.Random(0))


def test_who_listens_is_repaired_and_who_obeys_is_overcorrected() -> None:
    listener = scores(lambda example, said: perfect(example) if said else "")
    assert listener["world/interaction/turn_0"] == 0
    assert all(listener[f"world/interaction/turn_{n}"] == 1 for n in (1, 2, 3, 4))
    assert listener["world/interaction/gain_1"] == 1 and listener["world/interaction/gain_2"] == 0
    assert listener["world/interaction/repaired"] == listener["world/interaction/fixed_1"] == 1
    obedient = scores(lambda example, said: "" if said else perfect(example))
    assert obedient["world/interaction/overcorrection"] == 1
    assert all(obedient[f"world/interaction/turn_{n}"] == 1 for n in range(5))
    deaf = scores(lambda example, said: perfect(example) if len(example.id) % 2 else "")
    assert deaf["world/interaction/turn_4"] == deaf["world/interaction/turn_0"]


def test_feedback_about_another_scene_fits_the_task_and_is_the_same_for_every_model() -> None:
    examples = list(InteractionBenchmark(scenes=12).examples())
    assert [e.annotations for e in examples] == [
        e.annotations for e in InteractionBenchmark(scenes=12).examples()
    ]
    advice = {truth(e)[1].task: e.annotations["other_feedback"] for e in examples}
    assert all(advice.values()), advice
    assert " is not " in advice["relation"] and "harm" in advice["harmful"]
