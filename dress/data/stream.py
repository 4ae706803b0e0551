"""The order of groups as a pure function of (data, seed, epoch), and steps of collated batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, count
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from dress.chat.encoders import Encoder
from dress.data.reading import take_retries
from dress.data.rejects import Rejects
from dress.data.shard_index import ShardIndex
from dress.data.stores.cache import ShardCache
from dress.data.workers import Receiver, Sender, deaf_to_interrupts, end_with_parent
from dress.distributed import gather, summed
from dress.errors import InputError, Reject
from dress.settings import Positive, Whole, checked
from dress.types import EncodedGroup, Sample, TokenBatch

Collator = Callable[[Sequence[EncodedGroup]], tuple[TokenBatch, ...]]
_Shards = tuple[Int[np.ndarray, " shard"], Int[np.ndarray, " shard"]]


@dataclass(frozen=True)
class Position:
    """A place in the endless stream: index = epoch * len(stream) + place within the epoch.

    `source` is the number of the stream that the group comes from, where several are mixed.
    """

    index: int
    epoch: int
    source: int = 0


class Stream(Protocol):
    """An endless order of groups, epoch after epoch, that can be read from anywhere."""

    def __len__(self) -> int:
        """Return the number of groups of an epoch."""
        ...

    def fetch(self, index: int) -> tuple[Position, Sample | Reject]:
        """Read the one group at a position of the stream."""
        ...

    def where(self, index: int) -> str:
        """Name the file that holds the group at a position."""
        ...


class GroupStream:
    """All groups of a directory, epoch after epoch, readable from any position at once.

    Each epoch permutes the shards and, within consecutive windows of groups, the groups, so that
    reads stay close to each other on disk.
    """

    @checked
    def __init__(
        self,
        *,
        directory: str | os.PathLike[str],
        seed: Whole,
        shuffle: bool = True,
        window: Positive = 2048,
        cache: ShardCache | None = None,
    ) -> None:
        self.index = ShardIndex.open(directory, cache=cache)
        _check_cache(self.index, window=window if shuffle else 1)
        self.seed, self.shuffle, self.window = seed, shuffle, window
        self._groups = len(self.index)
        self._epochs: dict[int, _Shards] = {}

    def __len__(self) -> int:
        return self._groups

    def read(self, start: int = 0) -> Iterator[tuple[Position, Sample | Reject]]:
        """Yield groups without end; one that cannot be read is a Reject in its place."""
        for index in count(start):
            yield self.fetch(index)

    def fetch(self, index: int) -> tuple[Position, Sample | Reject]:
        """Read the one group at a position of the stream."""
        position = Position(index, index // len(self))
        shard, group = self.locate(position)
        return position, next(self.index.read_groups(shard, group, group + 1))

    def where(self, index: int) -> str:
        shard, _ = self.locate(Position(index, index // len(self)))
        return self.index.where(shard)

    def locate(self, position: Position) -> tuple[int, int]:
        """Return the shard and the group's number within it."""
        epoch, place = position.epoch, position.index % len(self)
        shards, ends = self._shards_of(epoch)
        if self.shuffle:
            window, within = divmod(place, self.window)
            size = min(self.window, len(self) - window * self.window)
            order = permutation(size, (self.seed, epoch, 1 + window))
            place = window * self.window + int(order[within])
        number = int(np.searchsorted(ends, place, side="right"))
        shard = int(shards[number])
        return shard, place - int(ends[number] - self.index.groups[shard])

    def _shards_of(self, epoch: int) -> _Shards:
        """Return the shards in the order of an epoch, and where each of them ends in it."""
        if epoch not in self._epochs:
            if len(self._epochs) > 1:
                self._epochs.clear()
            number = len(self.index.files)
            order = (
                permutation(number, (self.seed, epoch, 0)) if self.shuffle else np.arange(number)
            )
            self._epochs[epoch] = order, np.cumsum(self.index.groups[order])
        return self._epochs[epoch]


def _check_cache(index: ShardIndex, *, window: int) -> None:
    """Refuse a cache that would lose shards before their window has been read."""
    number = min(len(index.files), 1 + -(-window // max(1, int(index.groups.mean()))))
    needed = int(np.sort(index.sizes)[-number:].sum())
    if index.cache is not None and index.cache.max_bytes < needed:
        raise InputError(
            f"datamodule.cache.gigabytes is {index.cache.max_bytes / 1e9:g}, but the {number} "
            f"shards of a shuffling window take {needed / 1e9:.3g}: give more, or a smaller "
            "datamodule.window."
        )


@lru_cache(maxsize=64)
def permutation(size: int, key: tuple[int, ...]) -> Int[np.ndarray, " size"]:
    """Permute 0 to size by raw random words, which numpy keeps stable across its versions."""
    words = np.random.PCG64(np.random.SeedSequence(key)).random_raw(size)
    order = np.argsort(words, kind="stable")
    order.flags.writeable = False
    return order


@dataclass(frozen=True)
class Step:
    """One rank's share of one optimizer step, with what had to be left out of it."""

    batches: tuple[TokenBatch, ...]
    rejects: tuple[Reject, ...]
    groups: int  # seen, rejected ones included
    retries: int = 0  # reads that succeeded only when tried again


@dataclass(frozen=True)
class SentStep:
    """A step on its way out of a worker process."""

    batches: tuple[dict[str, Any], ...]
    rest: Step  # without its batches


class StepStream(IterableDataset[Step | SentStep]):
    """Cut a stream into steps: step s covers positions s*B to (s+1)*B, rank r every R-th of them.

    DataLoader worker w of W makes steps w, w+W, ..., so the order does not depend on W. `stop`
    ends the stream at a position, for one pass over validation data; the last step may be short.
    Where streams are mixed, `others` encode the groups of all but the first.
    """

    @checked
    def __init__(
        self,
        *,
        stream: Stream,
        encoder: Encoder,
        collator: Collator,
        groups_per_step: Positive,
        others: Sequence[Encoder] = (),
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        stop: int | None = None,
    ) -> None:
        super().__init__()
        assert 0 <= rank < world_size, (rank, world_size)
        self.stream, self.encoders, self.collator = stream, (encoder, *others), collator
        self.groups_per_step, self.start_step, self.stop = groups_per_step, start_step, stop
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[Step | SentStep]:
        worker = get_worker_info()
        if worker is None:
            yield from self._steps(first=0, stride=1)
            return
        sender = Sender(worker=worker.id)
        for step in self._steps(first=worker.id, stride=worker.num_workers):
            batches = tuple(sender.pack(batch) for batch in step.batches)
            yield SentStep(batches, replace(step, batches=()))

    def _steps(self, *, first: int, stride: int) -> Iterator[Step]:
        for step in count(self.start_step + first, stride):
            if self.stop is not None and step * self.groups_per_step >= self.stop:
                return
            yield self.make(step)

    def make(self, step: int) -> Step:
        """Read, encode and collate this rank's share of one step, which may be empty."""
        begin = step * self.groups_per_step
        end = begin + self.groups_per_step
        if self.stop is not None:
            end = min(end, self.stop)
        results = [self._encode(i) for i in range(begin + self.rank, end, self.world_size)]
        groups = [result for result in results if isinstance(result, EncodedGroup)]
        rejects = tuple(result for result in results if isinstance(result, Reject))
        return Step(self.collator(groups), rejects, len(results), take_retries())

    def _encode(self, index: int) -> EncodedGroup | Reject:
        position, sample = self.stream.fetch(index)
        if isinstance(sample, Reject):
            return sample
        try:
            return self.encoders[position.source](sample, epoch=position.epoch)
        except Reject as reject:
            return reject.at(where=self.stream.where(index), key=sample.id)


class StepLoader:
    """Run a StepStream in worker processes and count its rejects in this one.

    Workers only report rejects: an error raised there would reach the user as a traceback. Every
    rank counts the rejects of all ranks, so that all of them end at the same step.
    """

    @checked
    def __init__(self, *, steps: StepStream, rejects: Rejects, num_workers: Whole = 0) -> None:
        self.steps, self.rejects, self.num_workers = steps, rejects, num_workers

    def __iter__(self) -> Iterator[tuple[TokenBatch, ...]]:
        """Yield the batches of each step; raise InputError where rejects pass their limit."""
        loader = DataLoader(
            self.steps,
            batch_size=None,
            num_workers=self.num_workers,
            worker_init_fn=end_with_parent,
        )
        unused, receiver = 0, Receiver()
        with deaf_to_interrupts():
            arriving = iter(loader)
        for made in arriving:
            step = made if isinstance(made, Step) else _arrived(made, receiver)
            unused = 0 if self._count(step) else unused + self.steps.groups_per_step
            if self.steps.stop is None and unused >= len(self.steps.stream):
                raise InputError(
                    "no group of a whole epoch has a token to learn from: look at the data and "
                    "at data.max_rejects."
                )
            yield step.batches

    def _count(self, step: Step) -> bool:
        """Count what all ranks saw of a step; tell whether any of them can learn from it."""
        usable = sum(batch.usable for batch in step.batches)
        groups, retries, rejected, usable = summed(
            (step.groups, step.retries, len(step.rejects), usable)
        )
        self.rejects.seen(groups)
        self.rejects.retries += retries
        for reject in chain(*gather(step.rejects)) if rejected else ():
            self.rejects.add_once(reject)
        return usable > 0


def _arrived(sent: SentStep, receiver: Receiver) -> Step:
    return replace(sent.rest, batches=tuple(receiver.unpack(batch) for batch in sent.batches))
