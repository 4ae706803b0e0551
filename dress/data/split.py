"""Write samples into a training and a validation split, by image, resumable after a kill."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dress.data.conversion import Items
from dress.data.rejects import Rejects
from dress.data.shard_writer import ShardWriter
from dress.errors import InputError, Reject
from dress.files import read_json, remove_unfinished, write_json
from dress.settings import Share, checked
from dress.types import Sample

SPLITS = ("train", "validation")
_SMALL = 200  # groups below which the hash may by chance leave no image for validation


class SplitWriter:
    """Write `directory/train` and `directory/validation` from what becomes of the rows of a source.

    With a `journal` the state is saved every `save_every_s`: a new writer on the same directory
    goes on at row `next_row`, and ends with the same bytes as if nothing had happened.
    """

    @checked
    def __init__(
        self,
        directory: Path,
        *,
        validation_share: Share,
        rejects: Rejects,
        journal: Path | None = None,
        save_every_s: float = 0.0,
    ) -> None:
        self.directory, self.rejects, self.journal = directory, rejects, journal
        self.save_every_s = save_every_s
        if journal:
            remove_unfinished(journal.parent)
        saved = read_json(journal) if journal else {}
        self.asked_share = validation_share
        self.share: float | None = saved.get("share")  # known once the first groups were seen
        self.next_row = int(saved.get("next_row", 0))
        self.counts: dict[str, int] = saved.get("counts") or dict.fromkeys(SPLITS, 0)
        self._saved_writers: dict[str, Any] = saved.get("writers", {})
        if saved:
            rejects.restore(saved["rejects"])

    def write(self, rows: Iterable[Items]) -> dict[str, int]:
        """Write all rows; return the number of groups of each split."""
        counted = self._counted(rows)
        head: list[list[Sample]] = []
        if self.share is None:
            head = list(_head(counted))
            groups = [sample for row in head for sample in row]
            small = len(groups) < _SMALL
            self.share = _widened(self.asked_share, groups) if small else self.asked_share
        with ExitStack() as stack:
            writers = {split: stack.enter_context(self._writer(split)) for split in SPLITS}
            for row in head:
                self._write_row(row, writers)
            last = time.monotonic()
            for row in counted:
                self._write_row(row, writers)
                if self.journal and time.monotonic() - last >= self.save_every_s:
                    self._save(writers)
                    last = time.monotonic()
            self._check_filled()
        return self.counts

    def _counted(self, rows: Iterable[Items]) -> Iterator[list[Sample]]:
        """Keep the samples of each row; count the rejects, which may end everything."""
        for row in rows:
            self.rejects.seen(len(row))
            for item in row:
                if isinstance(item, Reject):
                    self.rejects.add(item.where, item.key, item.reason, item.detail)
            yield [item for item in row if isinstance(item, Sample)]

    def _writer(self, split: str) -> ShardWriter:
        resumable = self.journal is not None
        state = self._saved_writers.get(split)
        return ShardWriter(self.directory / split, resumable=resumable, state=state)

    def _write_row(self, row: Sequence[Sample], writers: dict[str, ShardWriter]) -> None:
        assert self.share is not None
        for sample in row:
            split = split_of(sample, self.share)
            writers[split].write(sample)
            self.counts[split] += 1
        self.next_row += 1

    def _save(self, writers: dict[str, ShardWriter]) -> None:
        assert self.journal is not None
        state = {
            "share": self.share,
            "next_row": self.next_row,
            "counts": self.counts,
            "rejects": self.rejects.state(),
            "writers": {split: writer.state() for split, writer in writers.items()},
        }
        write_json(self.journal, state)

    def _check_filled(self) -> None:
        for split, count in self.counts.items():
            if count == 0:
                raise InputError(
                    f"the {split} split is empty: the source gives too few samples (or all were "
                    "rejected); enlarge it or change data.validation_share."
                )


def _head(rows: Iterator[list[Sample]]) -> Iterator[list[Sample]]:
    """Yield rows until their samples are many."""
    count = 0
    while count < _SMALL and (row := next(rows, None)) is not None:
        count += len(row)
        yield row


def _widened(validation_share: float, samples: Sequence[Sample]) -> float:
    """Return a share that includes at least one image, unless none or only one image is there."""
    places = sorted({_hash_share(sample) for sample in samples})
    if validation_share <= 0 or len(places) < 2:
        return validation_share
    return max(validation_share, places[1] if places[0] >= validation_share else 0.0)


def split_of(sample: Sample, validation_share: float) -> str:
    """Choose by the hash of the first image, so that no image stands on both sides."""
    return "validation" if _hash_share(sample) < validation_share else "train"


def _hash_share(sample: Sample) -> float:
    """Hash the first image to a number from 0 to 1."""
    key = sample.images[0] if sample.images else sample.id.encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / 2**64
