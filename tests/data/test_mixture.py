"""A mixture is exact, needs no replay, and ends as it was told to."""

from __future__ import annotations

import time
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dress.data.mixture import Mixture, seats
from dress.data.shard_writer import ShardWriter
from dress.data.stream import GroupStream
from dress.errors import InputError
from dress.types import Sample
from tests.chat.tiny_chat import make_sample
from tests.data.bare_shards import bare_shards


def mixture(tmp_path: Path, sizes: list[int], weights: list[float], **settings: Any) -> Mixture:
    sources = [
        GroupStream(directory=bare_shards(tmp_path / str(number), [size]), seed=number)
        for number, size in enumerate(sizes)
    ]
    return Mixture(sources=sources, weights=weights, **({"seed": 0} | settings))


def drawn(mixed: Mixture, start: int, stop: int) -> list[tuple[int, int]]:
    return [mixed.locate(index) for index in range(start, stop)]


def greedy_seats(weights: tuple[int, ...], number: int) -> list[tuple[int, ...]]:
    """Give one seat after the other to the highest quotient, as Webster's method is defined."""
    counts, after = [0] * len(weights), []
    for _ in range(number + 1):
        after.append(tuple(counts))
        best = max(range(len(weights)), key=lambda k: Fraction(weights[k], 2 * counts[k] + 1))
        counts[best] += 1
    return after


@pytest.mark.parametrize(
    "weights", [(1,), (1, 1), (7, 2, 1), (5, 3, 3, 1, 1), (1000, 1), (2, 0, 1)]
)
def test_seats_are_those_given_one_by_one(weights: tuple[int, ...]) -> None:
    assert [seats(weights, n) for n in range(301)] == greedy_seats(weights, 300)


@pytest.mark.parametrize("weights", [[0.7, 0.2, 0.1], [1, 1], [0.333, 0.667], [1e-3, 1]])
def test_every_prefix_keeps_the_proportion(tmp_path: Path, weights: list[float]) -> None:
    mixed = mixture(tmp_path, [50] * len(weights), weights)
    sources = [source for source, _ in drawn(mixed, 0, 256 * 12)]
    shares = np.array(weights) / sum(weights)
    for end in range(256, len(sources) + 1, 256):
        counts = np.bincount(sources[:end], minlength=len(weights))
        assert np.abs(counts - end * shares).max() < 1
    alternations = sum(a != b for a, b in pairwise(sources))
    chance = 1 - (shares**2).sum()  # in random order, not in turns
    assert alternations == pytest.approx(len(sources) * chance, rel=0.2, abs=12)


@pytest.mark.parametrize("when_dry", ["repeat", "stop", "reweight"])
def test_each_source_is_given_in_its_own_order_without_gap(tmp_path: Path, when_dry: str) -> None:
    mixed = mixture(tmp_path, [40, 9, 300], [0.5, 0.3, 0.2], when_dry=when_dry)
    whole = drawn(mixed, 0, 2500)
    for source in range(3):
        numbers = [number for k, number in whole if k == source]
        if when_dry == "stop":  # what is left of an epoch is passed over
            assert numbers == sorted(set(numbers))
        else:
            assert numbers == list(range(len(numbers)))
    for start in (0, 1, 255, 256, 800, 2100):
        assert drawn(mixed, start, start + 300) == whole[start : start + 300]
    again = mixture(tmp_path, [40, 9, 300], [5, 3, 2], when_dry=when_dry)
    assert drawn(again, 0, 2500) == whole
    other = mixture(tmp_path, [40, 9, 300], [5, 3, 2], when_dry=when_dry, seed=1)
    assert drawn(other, 0, 300) != whole[:300]


def test_repeat_goes_on_in_proportion(tmp_path: Path) -> None:
    mixed = mixture(tmp_path, [10, 1000], [1, 1], when_dry="repeat")
    assert Counter(source for source, _ in drawn(mixed, 0, 512)) == {0: 256, 1: 256}
    assert max(number for source, number in drawn(mixed, 0, 512) if source == 0) == 255
    assert len(mixed) == 1010


def test_stop_ends_the_epoch_with_the_first_dry_source(tmp_path: Path) -> None:
    # 1:3 gives source 0 its turns in the 2nd, 6th, 10th ... seat (ties go to the first source):
    # its 10 groups last for 41 of them, the 42nd would be its 11th
    mixed = mixture(tmp_path, [10, 1000], [1, 3], when_dry="stop")
    epoch = len(mixed)
    counts = Counter(source for source, _ in drawn(mixed, 0, epoch))
    assert epoch == 41 and counts == {0: 10, 1: 31}
    second = drawn(mixed, epoch, 2 * epoch)
    assert sorted(n for source, n in second if source == 0) == list(range(10, 20))
    assert sorted(n for source, n in second if source == 1) == list(range(1000, 1031))


def test_reweight_gives_every_group_once(tmp_path: Path) -> None:
    sizes = [10, 300, 700]
    mixed = mixture(tmp_path, sizes, [0.5, 0.25, 0.25], when_dry="reweight")
    assert len(mixed) == 1010
    for epoch in range(2):
        found = drawn(mixed, 1010 * epoch, 1010 * (epoch + 1))
        for source, size in enumerate(sizes):
            numbers = sorted(n for k, n in found if k == source)
            assert numbers == list(range(epoch * size, (epoch + 1) * size))
    sources = [source for source, _ in drawn(mixed, 0, 1010)]
    assert max(n for n, source in enumerate(sources) if source == 0) < 22
    middle = Counter(sources[21:600])  # two sources of equal weight until the second is dry
    assert abs(middle[1] - middle[2]) <= 3
    assert set(sources[-300:]) == {2}


def test_the_groups_are_those_of_the_sources(tmp_path: Path) -> None:
    for name, numbers in (("a", range(4)), ("b", range(100, 103))):
        with ShardWriter(tmp_path / name) as writer:
            for number in numbers:
                writer.write(make_sample(number, turns=1))
    sources = [GroupStream(directory=tmp_path / name, seed=0) for name in "ab"]
    mixed = Mixture(sources=sources, weights=[1, 1], seed=0)
    read = [mixed.fetch(index) for index in range(12)]
    ids = [sample.id for _, sample in read if isinstance(sample, Sample)]
    assert len(set(ids)) == 7 and len(ids) == 12
    assert [position.index for position, _ in read] == list(range(12))
    for index, (position, sample) in enumerate(read):
        assert isinstance(sample, Sample)
        of_b = int(sample.id.split("-")[1]) >= 100
        assert mixed.where(index) == str(tmp_path / ("b" if of_b else "a") / "shard-000000.tar")
        assert position.epoch == ids[:index].count(sample.id)  # epochs are those of the source


def test_seeking_far_costs_what_seeking_near_costs(tmp_path: Path) -> None:
    mixed = mixture(tmp_path, [10**4] * 8, [1.5, 1, 1, 1, 1, 1, 1, 0.001], when_dry="repeat")
    times = []
    for start in (10**3, 10**15):
        began = time.process_time()
        drawn(mixed, start, start + 500)
        times.append(time.process_time() - began)
    assert times[1] < 10 * times[0] + 0.5


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_wrong_weights_are_refused(tmp_path: Path, weight: float) -> None:
    with pytest.raises(InputError, match="give numbers above 0"):
        mixture(tmp_path, [1, 1], [1, weight])
    with pytest.raises(InputError, match="when_dry"):
        mixture(tmp_path, [1, 1], [1, 1], when_dry="panic")
