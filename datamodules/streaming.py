"""Stream shards as optimizer steps, resumable at the last step trained on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np

from dress.chat.encoders import Encoder
from dress.data.collate import TreeCollator
from dress.data.mixture import Mixture, WhenDry
from dress.data.rejects import Rejects
from dress.data.stores.addresses import below
from dress.data.stores.cache import ShardCache
from dress.data.stream import GroupStream, StepLoader, StepStream, Stream
from dress.types import TokenBatch

Loader = Iterable[tuple[TokenBatch, ...]]
_CHECKED = 256  # groups of each split: a second or two, and all of a small set


@dataclass(frozen=True)
class Source:
    """More data to train on: a directory of shards or its URL, its weight, what encodes it."""

    directory: str | os.PathLike[str]
    weight: float
    encoder: Encoder


class ShardDataModule(L.LightningDataModule):
    """Train on `directory/train` without end, validate on one pass over `directory/validation`.

    What a record becomes is the encoder's business. The position saved is that of the last step
    trained on, so prefetching never matters. `others` are trained on beside this one by weight;
    `when_dry` says what happens at the end of one (mixture.py).
    A directory may be a URL, of whose shards `cache` keeps copies.
    """

    def __init__(
        self,
        *,
        directory: str | os.PathLike[str],
        encoder: Encoder,
        collator: TreeCollator,
        groups_per_step: int,
        seed: int,
        window: int = 2048,
        num_workers: int = 0,
        max_rejects: float = 0,
        others: Sequence[Source] = (),
        weight: float = 1.0,
        when_dry: WhenDry = "repeat",
        cache: ShardCache | None = None,
    ) -> None:
        super().__init__()
        self.directory, self.cache = directory, cache
        self.encoder, self.collator = encoder, collator
        self.other_encoders = tuple(other.encoder for other in others)
        self.groups_per_step, self.num_workers = groups_per_step, num_workers
        self.sources = [
            GroupStream(
                directory=below(source, "train"),
                seed=source_seed(seed, number),
                window=window,
                cache=cache,
            )
            for number, source in enumerate([directory, *(other.directory for other in others)])
        ]
        weights = [weight, *(other.weight for other in others)]
        self.train_stream: Stream = (
            Mixture(sources=self.sources, weights=weights, seed=seed, when_dry=when_dry)
            if others
            else self.sources[0]
        )
        self.validation_stream = GroupStream(
            directory=below(directory, "validation"), seed=seed, shuffle=False, cache=cache
        )
        self.rejects = Rejects(
            max_rejects=max_rejects,
            total=sum(map(len, (*self.sources, self.validation_stream))),
        )
        self.start_step = 0

    def check(self) -> None:
        """Encode the first groups of all data, so that bad data shows before anything trains."""
        encoders = (self.encoder, *self.other_encoders, self.encoder)
        streams = (*self.sources, self.validation_stream)
        for stream, encoder in zip(streams, encoders, strict=True):
            steps = StepStream(
                stream=stream, encoder=encoder, collator=lambda _: (), groups_per_step=1
            )
            for number in range(min(_CHECKED, len(stream))):
                self.rejects.seen()
                for reject in steps.make(number).rejects:
                    self.rejects.add_once(reject)

    def in_order(self) -> Iterator[StepStream]:
        """Yield one pass over the groups of `directory` for each split, as they are stored."""
        for split in ("train", "validation"):
            stream = GroupStream(
                directory=below(self.directory, split), seed=0, shuffle=False, cache=self.cache
            )
            yield StepStream(
                stream=stream,
                encoder=self.encoder,
                collator=self.collator,
                groups_per_step=self.groups_per_step,
                stop=len(stream),
            )

    def train_dataloader(self) -> Loader:
        return self._loader(self.train_stream, start_step=self.start_step, stop=None)

    def val_dataloader(self) -> Loader:
        stream = self.validation_stream
        return self._loader(stream, start_step=0, stop=len(stream))

    def _loader(self, stream: Stream, *, start_step: int, stop: int | None) -> Loader:
        trainer = self.trainer
        steps = StepStream(
            stream=stream,
            encoder=self.encoder,
            others=self.other_encoders,
            collator=self.collator,
            groups_per_step=self.groups_per_step,
            start_step=start_step,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            stop=stop,
        )
        return StepLoader(steps=steps, rejects=self.rejects, num_workers=self.num_workers)

    def state_dict(self) -> dict[str, Any]:
        assert self.trainer is not None
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        step = progress.current.processed  # type: ignore[attr-defined]
        return {"step": step, "rejects": self.rejects.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.start_step = state_dict["step"]
        self.rejects.load_state_dict(state_dict["rejects"])


def source_seed(seed: int, number: int) -> int:
    """Give each source an order of its own; that of the first is the one it has alone."""
    return seed if number == 0 else int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
