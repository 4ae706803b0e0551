"""Several sources in one stream by weight: which source comes next follows from the position alone.

After n groups source k has given Webster's share of n seats (the divisor method of apportionment),
within one group of n * w_k / sum(w) for two or three sources and very close to it for more; within
blocks of 256 the sources come in random order. Nothing is replayed: a position is found by
arithmetic on whole numbers, so weights are exact however long the stream is.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Int

from dress.data.stream import Position, Stream, permutation
from dress.errors import InputError, Reject
from dress.settings import checked
from dress.types import Sample

WhenDry = Literal["repeat", "stop", "reweight"]
_BLOCK = 256  # groups within which the sources are in random order
_Counts = tuple[int, ...]


@dataclass(frozen=True)
class _Phase:
    """A part of an epoch with the same sources; others have the weight 0."""

    start: int  # its first position in the epoch
    length: int | None  # None: without end
    weights: tuple[int, ...]
    given: _Counts  # what each source gave before it


class Mixture:
    """Draw from streams in proportion to their weights.

    When a source runs dry, `repeat` begins it again in a new order (sources then have epochs of
    their own); `stop` ends the epoch, leaving out the rest of the others; `reweight` goes on with
    the others until each group of each source was given once. After an epoch the next begins.
    """

    @checked
    def __init__(
        self,
        *,
        sources: Sequence[Stream],
        weights: Sequence[float],
        seed: int,
        when_dry: WhenDry = "repeat",
    ) -> None:
        if any(not 0 < weight < math.inf for weight in weights):
            raise InputError(
                f"the weights of the mixture are {list(weights)}: give numbers above 0."
            )
        self.sources, self.seed, self.when_dry = tuple(sources), seed, when_dry
        self._sizes = tuple(len(source) for source in sources)
        self._phases = _phases(_whole(weights), self._sizes, when_dry)

    def __len__(self) -> int:
        """Return the groups of an epoch; with `repeat`, where there is none, of all sources."""
        end = self._phases[-1]
        return sum(self._sizes) if end.length is None else end.start + end.length

    def fetch(self, index: int) -> tuple[Position, Sample | Reject]:
        """Read the one group at a position; the epoch is that of its source."""
        source, number = self.locate(index)
        position, sample = self.sources[source].fetch(number)
        return Position(index, position.epoch, source), sample

    def where(self, index: int) -> str:
        source, number = self.locate(index)
        return self.sources[source].where(number)

    def locate(self, index: int) -> tuple[int, int]:
        """Return the source and the position within its own endless stream."""
        repeats = self.when_dry == "repeat"
        epoch, place = (0, index) if repeats else divmod(index, len(self))
        number = max(n for n, phase in enumerate(self._phases) if phase.start <= place)
        phase = self._phases[number]
        block, within = divmod(place - phase.start, _BLOCK)
        source, turn = _turn(phase, block, (self.seed, epoch, number, block), within)
        return source, epoch * self._sizes[source] + turn


def _turn(phase: _Phase, block: int, key: tuple[int, ...], within: int) -> tuple[int, int]:
    """Return the source at a place of a block, and how many groups it has given before."""
    order, before = _block(phase, block, key)
    source = int(order[within])
    earlier = int((order[:within] == source).sum())
    return source, phase.given[source] + before[source] + earlier


@lru_cache(maxsize=64)
def _block(
    phase: _Phase, block: int, key: tuple[int, ...]
) -> tuple[Int[np.ndarray, " place"], _Counts]:
    """Return the source at each place of a block, and what each gave in the phase before it."""
    begin = block * _BLOCK
    end = begin + _BLOCK if phase.length is None else min(begin + _BLOCK, phase.length)
    before, after = seats(phase.weights, begin), seats(phase.weights, end)
    sources = np.repeat(np.arange(len(before)), np.subtract(after, before))
    return sources[permutation(len(sources), key)], before


@lru_cache(maxsize=256)
def seats(weights: tuple[int, ...], number: int) -> _Counts:
    """Share out a number of seats by Webster's method, which never takes a seat back.

    The first seats are the weights divided by a common amount and rounded; the divisor is so large
    that at most one seat for each weight is still missing, which go to the highest w / (2 s + 1).
    """
    total, most = sum(weights), 2 * number - len(weights)
    counts = [max(0, -((total - weight * most) // (2 * total))) for weight in weights]
    for _ in range(number - sum(counts)):
        best = max(range(len(weights)), key=lambda k: Fraction(weights[k], 2 * counts[k] + 1))
        counts[best] += 1
    return tuple(counts)


def _phases(
    weights: tuple[int, ...], sizes: Sequence[int], when_dry: WhenDry
) -> tuple[_Phase, ...]:
    given = (0,) * len(sizes)
    if when_dry == "repeat":
        return (_Phase(0, None, weights, given),)
    phases: list[_Phase] = []
    start = 0
    while any(weights):
        left = tuple(size - gone for size, gone in zip(sizes, given, strict=True))
        length = _until_dry(weights, left)
        phases.append(_Phase(start, length, weights, given))
        if when_dry == "stop":
            break
        start += length
        given = tuple(map(sum, zip(given, seats(weights, length), strict=True)))
        weights = tuple(w * (g < s) for w, g, s in zip(weights, given, sizes, strict=True))
    return tuple(phases)


def _until_dry(weights: tuple[int, ...], left: Sequence[int]) -> int:
    """Return how many groups can be given before a source with a weight lacks one."""
    live = [k for k, weight in enumerate(weights) if weight]

    def lacks(number: int) -> bool:
        counts = seats(weights, number)
        return any(counts[k] > left[k] for k in live)

    return bisect_left(range(sum(left) + 2), True, key=lacks) - 1


def _whole(weights: Sequence[float]) -> tuple[int, ...]:
    """Turn weights, as they are written, into whole numbers of the same proportion."""
    fractions = [Fraction(str(weight)) for weight in weights]
    common = math.lcm(*(fraction.denominator for fraction in fractions))
    return tuple(int(fraction * common) for fraction in fractions)
