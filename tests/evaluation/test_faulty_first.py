"""Dialogues that open with a fault: what is said in each arm, and what counts, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dress.data.shard_writer import ShardWriter
from dress.errors import InputError
from dress.evaluation.benchmark import Example
from dress.evaluation.benchmarks.faulty_first import FaultyFirstBenchmark
from dress.evaluation.benchmarks.interaction import InteractionBenchmark, interaction
from dress.evaluation.benchmarks.world import WorldBenchmark
from dress.evaluation.statistics import bootstrap, pool
from dress.types import Dialogue, Sample, Turn
from dress.world.questions import Question
from dress.world.scene import Scene, Thing

SCENE = Scene(
    (
        Thing(cell=0, colour="red", shape="circle", size="small"),
        Thing(cell=4, colour="blue", shape="square", size="large"),
    )
)
COUNT = Question("count", "How many objects are there?", "2")
RIGHT = "In the top left and in the centre I see objects, so there are two."
ONE, THREE = "There is one object.", "There are three objects."
FEWER, MORE = "There are fewer objects than that.", "There are more objects than that."
OTHER = "There are more crosses than that."
ARMS = ("empty", "other", "aside", "wrong")


def example(arm: str, *, told: str | None = None, name: str = "a") -> Example:
    return Example(
        id=f"{name}-{arm}",
        cluster=name,
        images=(b"",),
        question=COUNT.text,
        answer=RIGHT,
        annotations={
            "scene": SCENE.to_json(),
            "question": COUNT.to_json(),
            "arm": arm,
            "told": told,
        },
        turns=(Turn(COUNT.text, THREE),),
    )


def benchmark(**options: object) -> FaultyFirstBenchmark:
    return FaultyFirstBenchmark(openings="", scenes=2, turns=3, **options)  # type: ignore[arg-type]


def after(*responses: str) -> list[Turn]:
    return [Turn("user", response) for response in (THREE, *responses)]


@pytest.mark.parametrize(
    ("arm", "told", "responses", "said"),
    [
        ("hint", None, (), FEWER),
        ("hint", None, (ONE,), MORE),  # follows from each response anew
        ("hint", None, (RIGHT,), None),
        ("other", OTHER, (), OTHER),
        ("other", OTHER, (ONE,), OTHER),
        ("other", OTHER, (RIGHT,), None),
        ("empty", "", (ONE,), ""),
    ],
)
def test_what_the_user_says(
    arm: str, told: str | None, responses: Sequence[str], said: str | None
) -> None:
    asked = example(arm, told=told)
    assert benchmark().replies([(asked, after(*responses))]) == [said]


def figures(*answered: tuple[Example, Sequence[Turn]]) -> dict[str, float]:
    made = benchmark(controls=["other"])
    labels = [made.labels(asked, turns) for asked, turns in answered]
    return bootstrap(pool([asked.cluster for asked, _ in answered], labels), made.metrics)


def test_repaired_by_turn_under_the_hint_and_under_a_control() -> None:
    """Under the hint a is repaired at once and b by the second; under the control b alone is."""
    metrics = figures(
        (example("hint"), after(RIGHT)),
        (example("hint", name="b"), after(THREE, RIGHT)),
        (example("other", told=OTHER), after(THREE, THREE, THREE)),
        (example("other", told=OTHER, name="b"), after(ONE, RIGHT)),
    )
    name = "world/interaction/"
    repaired = [metrics[f"{name}faulty/repaired_{n}"] for n in (1, 2, 3)]
    assert repaired == [0.5, 1.0, 1.0]
    assert [metrics[f"{name}faulty/other/repaired_{n}"] for n in (1, 2, 3)] == [0, 0.5, 0.5]
    assert metrics[f"{name}use_of_feedback/other"] == 0.5
    assert metrics[f"{name}faulty/task/count"] == 1.0
    # three was denied twice and said again once: 1 of 2
    assert metrics[f"{name}denied_repeated"] == pytest.approx(1 / 3)
    assert {f"{name}use_of_feedback/other_low", f"{name}denied_repeated_high"} <= metrics.keys()


def test_without_a_denied_statement_there_is_no_share_of_them() -> None:
    """Who does not say a number hears `Say how many`, which denies nothing."""
    silent = [Turn("user", "I do not know.")] * 2
    metrics = figures((example("hint"), silent), (example("other", told=OTHER), silent))
    assert metrics["world/interaction/faulty/repaired_1"] == 0
    assert not any("denied_repeated" in name for name in metrics)


def write_openings(
    folder: Path, responses: Sequence[str], *, scenes: int = 3
) -> FaultyFirstBenchmark:
    """Say the same responses to every question of the first scenes."""
    questions = list(WorldBenchmark(scenes=scenes).examples())
    for split, chosen in (("train", questions[1:]), ("validation", questions[:1])):
        with ShardWriter(folder / split) as writer:
            for asked in chosen:
                dialogues = tuple(Dialogue((Turn(asked.question, said),)) for said in responses)
                writer.write(Sample(asked.id, asked.images, dialogues, asked.annotations))
    return FaultyFirstBenchmark(openings=str(folder), scenes=3)


def test_every_question_opens_with_its_first_faulty_response_in_every_arm(tmp_path: Path) -> None:
    made = write_openings(tmp_path, ["Yes.", "I do not know."])
    plain = list(WorldBenchmark(scenes=3).examples())
    examples = list(made.examples())
    assert [e.id for e in examples] == [f"{p.id}-{arm}" for p in plain for arm in ("hint", *ARMS)]
    assert all(len(e.turns) == 1 and e.turns[0].user == e.question for e in examples)
    assert {e.turns[0].model for e in examples} == {"Yes."}
    told = {e.annotations["arm"]: e.annotations["told"] for e in examples[:5]}
    assert told["hint"] is None and told["empty"] == ""
    assert all(told[arm] for arm in ("other", "aside", "wrong"))


def test_a_question_without_a_faulty_response_is_left_out(tmp_path: Path) -> None:
    plain = list(WorldBenchmark(scenes=3).examples())
    counting = next(e for e in plain if "How many" in e.question)
    made = write_openings(tmp_path, [counting.answer])
    kept = {e.id.removesuffix("-hint") for e in made.examples() if e.id.endswith("-hint")}
    assert counting.id not in kept and len(kept) < len(plain)


def test_openings_of_other_questions_are_refused(tmp_path: Path) -> None:
    made = write_openings(tmp_path, ["Yes."], scenes=2)
    with pytest.raises(InputError, match=r"has no responses to world-test-0-000002"):
        list(made.examples())
    with pytest.raises(InputError, match=r"has no responses to"):
        list(FaultyFirstBenchmark(openings=str(tmp_path), scenes=2, seed=1).examples())


def test_first_chooses_the_protocol() -> None:
    assert isinstance(interaction(scenes=2), InteractionBenchmark)
    assert isinstance(interaction(scenes=2, first="faulty"), FaultyFirstBenchmark)
