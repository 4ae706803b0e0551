"""Training that goes on with another number of ranks makes the same steps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

from dress.files import read_lines
from tests.lit import elastic_ranks

UNTIL = 14


@dataclass
class Step:
    ids: list[str]
    loss: float | None
    world: int


def steps_of(folder: Path) -> list[Step]:
    """Put the shares of the ranks together again: rank r has every R-th group of a step."""
    logs = [list(read_lines(folder / f"log.{rank}")) for rank in range(4)]
    steps = []
    while logs[0]:
        world = logs[0][0]["world"]
        shares = [log.pop(0) for log in logs[:world]]
        assert {share["world"] for share in shares} == {world}
        assert len({share["loss"] for share in shares}) == 1
        assert all(
            len(share["ids"]) <= -(-elastic_ranks.GROUPS_PER_STEP // world) for share in shares
        )
        together = zip_longest(*(share["ids"] for share in shares))
        ids = [name for row in together for name in row if name]
        steps.append(Step(ids=ids, loss=shares[0]["loss"], world=world))
    assert not any(logs)
    return steps


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    elastic_ranks.write_data(folder)
    return folder


@dataclass
class Runs:
    whole: list[Step]
    elastic: list[Step]
    figures: dict[int, list[dict[str, float]]]  # of the end of each part, by number of ranks


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Runs:
    """Train with one rank, and with 1, 2, 4 and 1 in turn, the ranks being real processes."""
    whole, elastic = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("elastic")
    at_end = elastic_ranks.train(whole, data, UNTIL)
    elastic_ranks.train(elastic, data, 3)
    two = elastic_ranks.on_ranks(elastic, data, 7, workers=1, world=2)
    four = elastic_ranks.on_ranks(elastic, data, 11, workers=0, world=4)
    one = elastic_ranks.train(elastic, data, UNTIL, workers=2)
    return Runs(steps_of(whole), steps_of(elastic), {0: [at_end], 2: two, 4: four, 1: [one]})


def test_the_steps_are_the_same_on_any_number_of_ranks(runs: Runs) -> None:
    assert {step.world for step in runs.whole} == {1}
    assert sorted({step.world for step in runs.elastic}) == [1, 2, 4]
    assert len(runs.whole) >= UNTIL
    made = [(sorted(step.ids), step.loss is None) for step in runs.whole]
    assert [(sorted(step.ids), step.loss is None) for step in runs.elastic] == made
    for mine, theirs in zip(runs.elastic, runs.whole, strict=True):
        if len(mine.ids) == elastic_ranks.GROUPS_PER_STEP or mine.world == 1:
            assert mine.ids == theirs.ids  # a reject leaves a hole, which shifts its rank's share
        if theirs.loss is not None:
            assert mine.loss == pytest.approx(theirs.loss, rel=1e-9)


def test_awkward_shares_were_among_them(runs: Runs) -> None:
    steps = [step for step in runs.elastic if step.world == 4]
    assert any(len(step.ids) < 4 for step in steps)  # then a rank had no token to learn from
    assert any(name.endswith("-text") for step in steps for name in step.ids)
    assert not any(name.endswith("-silent") for step in runs.whole for name in step.ids)


def test_validation_is_the_same_on_every_rank(runs: Runs) -> None:
    for figures in runs.figures.values():
        assert len({figure["val"] for figure in figures}) == 1
    (end,), (again,) = runs.figures[0], runs.figures[1]
    assert again["val"] == pytest.approx(end["val"], rel=1e-6)  # logged in float32


def test_every_rank_counts_the_rejects_of_all(runs: Runs) -> None:
    for number in (2, 4):
        assert len({(f["groups_seen"], f["rejects"]) for f in runs.figures[number]}) == 1
        assert runs.figures[number][0]["rejects"] > 0
