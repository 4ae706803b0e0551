"""How well the order is shuffled, how little is read to resume, and shards of any size."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dress.data.shard_writer import ShardWriter
from dress.data.stream import GroupStream, Position
from dress.errors import InputError
from dress.types import Sample
from tests.chat.tiny_chat import make_sample
from tests.data.bare_shards import bare_shards

SHARDS, SIZE, WINDOW = 400, 25, 500
COUNT = SHARDS * SIZE


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_shards(tmp_path_factory.mktemp("order"), [SIZE] * SHARDS)


def written_places(directory: Path, *, epoch: int = 0, **settings: Any) -> np.ndarray:
    """Return where each group of an epoch stands as written, in the order of reading."""
    stream = GroupStream(directory=directory, **({"seed": 3, "window": WINDOW} | settings))
    found = (stream.locate(Position(epoch * COUNT + p, epoch)) for p in range(COUNT))
    return np.array([shard * SIZE + group for shard, group in found])


def displacements(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return by how much each group moved from its place in one order to that in another."""
    place = np.empty(COUNT, dtype=int)
    place[before] = np.arange(COUNT)
    return np.arange(COUNT) - place[after]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_displacement_within_windows_is_that_of_a_uniform_permutation(
    directory: Path, seed: int
) -> None:
    # A window of one group permutes the shards alone: the order that windows then shuffle.
    moved = displacements(
        written_places(directory, seed=seed, window=1), written_places(directory, seed=seed)
    )
    assert np.abs(moved).max() < WINDOW
    # d = i - j for i, j uniform in a window of W: P(d) = (W - |d|) / W^2
    distances = np.arange(1 - WINDOW, WINDOW)
    bins = np.array_split(np.arange(len(distances)), 20)
    share = (WINDOW - np.abs(distances)) / WINDOW**2
    expected = np.array([share[b].sum() for b in bins]) * COUNT
    counts = np.bincount(moved + WINDOW - 1, minlength=len(distances))
    observed = np.array([counts[b].sum() for b in bins])
    assert ((observed - expected) ** 2 / expected).sum() < 43.8  # chi-squared, 19 df, p = 0.001


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_neighbours_are_from_the_same_shard_as_often_as_by_chance(
    directory: Path, seed: int
) -> None:
    places = written_places(directory, seed=seed).reshape(-1, WINDOW)
    pairs = COUNT - len(places)
    same_shard = (places[:, 1:] // SIZE == places[:, :-1] // SIZE).sum()
    chance = (SIZE - 1) / (WINDOW - 1)
    assert abs(same_shard - pairs * chance) < 4 * np.sqrt(pairs * chance * (1 - chance))
    still_in_line = (np.diff(places, axis=1) == 1).sum()
    chance = (SIZE - 1) / SIZE / WINDOW
    assert abs(still_in_line - pairs * chance) < 4 * np.sqrt(pairs * chance)


def test_epochs_are_unrelated(directory: Path) -> None:
    moved = [written_places(directory, epoch=epoch) for epoch in range(3)]
    for first, second in pairwise(moved):
        correlation = np.corrcoef(np.argsort(first), np.argsort(second))[0, 1]
        assert abs(correlation) < 4 / np.sqrt(SHARDS)  # shards move as a whole
    beginnings = [int(places[0]) // SIZE for places in moved]
    assert len(set(beginnings)) == 3


def test_these_statistics_notice_an_order_that_is_not_shuffled(directory: Path) -> None:
    places = written_places(directory, shuffle=False)
    assert places.tolist() == list(range(COUNT))
    narrow = displacements(
        written_places(directory, window=1), written_places(directory, window=50)
    )
    assert np.abs(narrow).mean() < 20 < WINDOW / 4
    in_line = written_places(directory, window=1)
    assert (in_line[1:] // SIZE == in_line[:-1] // SIZE).mean() > 0.95


def bytes_read() -> int:
    """Return how much this process has read so far, from files or from the cache."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        pytest.skip("needs /proc/self/io")
    return int(dict(line.split(": ") for line in lines)["rchar"])


def test_resuming_reads_the_groups_of_its_step_and_nothing_before_them(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, max_groups=50) as writer:
        for number in range(600):
            writer.write(make_sample(number, turns=1))
    total = sum(path.stat().st_size for path in tmp_path.glob("*.tar"))
    needed = []
    for start in (8, 500):
        stream = GroupStream(directory=tmp_path, seed=0, window=100)
        before = bytes_read()
        groups = [stream.fetch(start + n)[1] for n in range(8)]
        needed.append(bytes_read() - before)
        assert all(isinstance(group, Sample) for group in groups)
    offsets = 12 * (128 + 8 * 51)  # what is read besides, if every shard were touched
    assert max(needed) < 8 * 1.5 * total / 600 + offsets + 2000 < total / 10


@pytest.mark.parametrize("sizes", [[0, 3, 0, 0, 4, 1, 0], [1], [1000, 1, 2]])
def test_shards_of_any_size_are_read_once_in_an_epoch(tmp_path: Path, sizes: list[int]) -> None:
    for window in (1, 3, 2048):
        stream = GroupStream(directory=bare_shards(tmp_path, sizes), seed=1, window=window)
        for epoch in range(2):
            start = epoch * len(stream)
            found = [stream.locate(Position(start + p, epoch)) for p in range(len(stream))]
            assert sorted(found) == [(s, g) for s, size in enumerate(sizes) for g in range(size)]


def test_no_group_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lists no shards with groups"):
        GroupStream(directory=bare_shards(tmp_path, [0, 0]), seed=0)
