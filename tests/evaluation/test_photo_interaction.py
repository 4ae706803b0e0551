"""Feedback on photographs: what the user says next, and what each turn was worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dress.errors import InputError
from dress.evaluation.benchmark import Answered, Interaction
from dress.evaluation.benchmarks.photo_interaction import PhotoInteractionBenchmark
from dress.evaluation.scoring import score
from dress.feedback.oracle import OracleAnnotator
from dress.feedback.rules import RuleAnnotator
from dress.types import Turn
from tests.data.coco_files import write_coco
from tests.evaluation.public_files import points, read_rows

WRONG, HALF, RIGHT = "A dog.", "A dog and a cat.", "A cat."  # about a cat on a mat
HEARD = (
    "You left out something that is in the picture. One thing that you named is not in the picture."
)


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(write_coco(tmp_path / "data"))


def benchmark(root: str, **options: Any) -> PhotoInteractionBenchmark:
    return PhotoInteractionBenchmark(
        annotator=options.pop("annotator", RuleAnnotator()),
        root=root,
        captions="coco/captions.json",
        instances="coco/instances.json",
        images="coco/images",
        **options,
    )


def turns(*responses: str) -> list[Turn]:
    users = ["Describe this image in detail.", *[HEARD] * 9]
    return [Turn(user, response) for user, response in zip(users, responses, strict=False)]


@pytest.mark.parametrize(
    ("user", "said"),
    [("annotator", HEARD), ("empty", ""), ("repeat", "Describe this image in detail.")],
)
def test_the_user_says_what_the_annotator_would_change(root: str, user: str, said: str) -> None:
    asking = benchmark(root, user=user)
    assert isinstance(asking, Interaction) and asking.max_turns == 4
    cat = next(e for e in asking.examples() if e.id == "2")
    asked = [(cat, turns(WRONG)), (cat, turns(RIGHT)), (cat, turns(WRONG, WRONG))]
    assert asking.replies(asked) == [said, None, said]


def test_figures_by_hand(root: str, tmp_path: Path) -> None:
    asking = benchmark(root)
    dog, cat, _ = asking.examples()
    answered = [
        Answered(dog, tuple(turns("A dog beside a bicycle.")), "1.jpg"),
        Answered(cat, tuple(turns(WRONG, HALF, RIGHT)), "2.jpg"),
    ]
    figures = points(score(asking, answered, directory=tmp_path))
    # of the cat: nothing covered, all invented; then all covered, half invented; then perfect
    assert figures["turn_0/helpfulness"] == (4 + 1) / 2 and figures["turn_0/honesty"] == (4 + 1) / 2
    assert figures["turn_1/helpfulness"] == 4 and figures["turn_1/honesty"] == (4 + 2) / 2
    assert figures["turn_0/mean"] == 3 and figures["turn_0/harmlessness"] == 4
    assert figures["turn_1/mean"] == pytest.approx((4 + 10 / 3) / 2)
    assert figures["turn_2/mean"] == figures["turn_3/mean"] == 4  # the dialogue ended there
    assert figures["gain_1"] == pytest.approx(2 / 3) and figures["gain_3"] == 0
    assert [figures[f"turn_{n}/perfect"] for n in range(4)] == [0.5, 0.5, 1, 1]
    assert figures["repaired"] == 1  # of one dialogue
    rows = read_rows(tmp_path / "responses.jsonl")
    assert [(row["id"], row["turn"], row["feedback"]) for row in rows] == [
        ("1", 0, None),
        ("2", 0, HEARD),
        ("2", 1, HEARD),
        ("2", 2, None),
    ]


def test_nothing_to_repair(root: str, tmp_path: Path) -> None:
    asking = benchmark(root, limit=1, seed=3)
    (one,) = asking.examples()
    assert [e.id for e in benchmark(root, limit=1, seed=3).examples()] == [one.id]
    names = one.answer.replace(", ", " and a ")
    answered = [Answered(one, tuple(turns(f"A {names}.")), "1.jpg")]
    figures = points(score(asking, answered, directory=tmp_path))
    assert "repaired" not in figures and figures["turn_0/perfect"] == 1


def test_mistakes(root: str) -> None:
    with pytest.raises(InputError, match="user is 'oracle': choose annotator or empty or repeat"):
        benchmark(root, user="oracle")
    with pytest.raises(InputError, match="annotator=oracle knows no photographs"):
        benchmark(root, annotator=OracleAnnotator()).inputs()
