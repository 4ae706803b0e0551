"""Open a directory of shards and read any of its groups."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Int

from dress.data.group_bytes import check_size, read_group
from dress.data.reading import read_range, read_whole
from dress.data.rejects import Reject
from dress.data.schema import SCHEMA_VERSION
from dress.data.shards import INDEX_NAME, OFFSETS_SUFFIX, file_sha256, offsets_path
from dress.errors import InputError
from dress.types import Sample

_SHARD = re.compile(r"\w[\w.-]*\.tar", re.ASCII)
_OFFSETS_KEPT = 64  # shards whose offsets are in memory: a shuffling window is read from few


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """What `index.json` says; offsets are read with the shards, so that opening stays cheap."""

    directory: Path
    files: tuple[str, ...]
    groups: Int[np.ndarray, " shard"]
    sha256: tuple[str, ...]
    fingerprint: str  # of index.json, which holds the hash of every shard
    _offsets: dict[int, Int[np.ndarray, " group_and_end"]] = field(default_factory=dict)

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> ShardIndex:
        """Open shards; raise InputError where they are missing, incomplete or altered in size."""
        directory = Path(directory)
        path = directory / INDEX_NAME
        if not path.is_file():
            raise InputError(f"{path} does not exist: name a directory of shards or build them.")
        try:
            text = read_whole(path)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}): try again.") from None
        shards = _entries(path, text)
        files, groups, sha256 = zip(*shards, strict=True)
        return cls(
            directory=directory,
            files=files,
            groups=np.array(groups, dtype=np.int64),
            sha256=sha256,
            fingerprint=hashlib.sha256(text).hexdigest(),
        )

    def __len__(self) -> int:
        return int(self.groups.sum())

    def verify(self) -> None:
        """Compare every shard with its recorded hash; raise InputError at the first mismatch."""
        for number, (file, sha256) in enumerate(zip(self.files, self.sha256, strict=True)):
            if file_sha256(self.directory / file) != sha256:
                raise InputError(f"{self.directory / file} was altered: build the shards again.")
            try:
                self.offsets(number)
            except Reject as reject:
                raise InputError(f"{reject}: build the shards again.") from None

    def offsets(self, shard: int) -> Int[np.ndarray, " group_and_end"]:
        """Return where the groups of a shard begin and the last one ends; Reject if damaged."""
        if (known := self._offsets.get(shard)) is not None:
            return known
        if len(self._offsets) >= _OFFSETS_KEPT:
            del self._offsets[next(iter(self._offsets))]
        path = offsets_path(self.directory / self.files[shard])
        self._offsets[shard] = _load_offsets(path, int(self.groups[shard]))
        return self._offsets[shard]

    def read_groups(self, shard: int, start: int, stop: int) -> Iterator[Sample | Reject]:
        """Yield groups start to stop (exclusive) of a shard; one that is damaged as a Reject."""
        where = str(self.directory / self.files[shard])
        for group in range(start, stop):
            try:
                begin, end = self.offsets(shard)[group : group + 2].tolist()
                yield _read_group(where, begin, end)
            except Reject as reject:
                yield reject.at(where=where, key=f"number {group}")


def _load_offsets(path: Path, groups: int) -> Int[np.ndarray, " group_and_end"]:
    try:
        offsets = np.lib.format.read_array(BytesIO(read_whole(path)), allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        detail = " ".join(str(error).split())[:120]
        raise Reject("damaged offsets", where=str(path), detail=detail) from error
    if offsets.shape == (groups + 1,) and offsets.dtype.kind in "ui":
        offsets = offsets.astype(np.int64)
        if offsets[0] == 0 and (np.diff(offsets) > 0).all():
            return offsets
    raise Reject("damaged offsets", where=str(path), detail="they do not fit the shard")


def _entries(path: Path, text: bytes) -> list[tuple[str, int, str]]:
    """Return file, groups and hash of each shard, checked without reading the shards."""
    try:
        index = json.loads(text)
        version = index["schema"]
        shards = [(str(s["file"]), int(s["groups"]), str(s["sha256"])) for s in index["shards"]]
        sizes = [int(s["bytes"]) for s in index["shards"]]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error!r}): build the shards again.") from None
    if version != SCHEMA_VERSION:
        raise InputError(f"{path} has schema {version}, not {SCHEMA_VERSION}: build it again.")
    whole = all(
        _SHARD.fullmatch(s[0]) and 0 <= s[1] <= n for s, n in zip(shards, sizes, strict=True)
    )
    if not whole or not any(groups for _, groups, _ in shards):
        raise InputError(f"{path} lists no shards with groups, or wrong ones: build them again.")
    _check_files(path.parent, shards, sizes)
    return shards


def _check_files(
    directory: Path, shards: Sequence[tuple[str, int, str]], sizes: Sequence[int]
) -> None:
    """Look at the size of every file at once, which for many shards is what takes time."""
    with os.scandir(directory) as entries:
        found = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    for (file, groups, _), size in zip(shards, sizes, strict=True):
        if found.get(file) != size:
            raise InputError(
                f"{directory / file} is missing or cut short: copy or build the shards again."
            )
        offsets = f"{os.path.splitext(file)[0]}{OFFSETS_SUFFIX}"
        if found.get(offsets, 0) < 8 * (groups + 1):
            raise InputError(
                f"{directory / offsets} is missing or does not match its shard: copy or build "
                "the shards again."
            )


def _read_group(path: str, begin: int, end: int) -> Sample:
    check_size(end - begin)
    try:
        data = read_range(path, begin, end)
    except OSError as error:
        raise Reject("unreadable file", detail=str(error)) from error
    if len(data) < end - begin:
        raise Reject("truncated tar", detail=f"{len(data)} of {end - begin} bytes")
    return read_group(data, where=path)
