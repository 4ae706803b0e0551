"""Open a directory of shards and read any of its groups."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Int

from dress.data.group_bytes import check_size, read_group
from dress.data.reading import read_range, read_whole
from dress.data.rejects import Reject
from dress.data.schema import SCHEMA_VERSION
from dress.data.shards import INDEX_NAME, file_sha256, offsets_path
from dress.errors import InputError
from dress.types import Sample

_SHARD = re.compile(r"\w[\w.-]*\.tar", re.ASCII)


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """What `index.json` says, with group counts summed up."""

    directory: Path
    files: tuple[str, ...]
    groups: Int[np.ndarray, " shard"]
    sha256: tuple[str, ...]
    fingerprint: str  # of index.json, which holds the hash of every shard
    offsets: tuple[Int[np.ndarray, " _"], ...]

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
            offsets=tuple(_load_offsets(directory / f, n) for f, n, _ in shards),
        )

    def __len__(self) -> int:
        return int(self.groups.sum())

    def verify(self) -> None:
        """Compare every shard with its recorded hash; raise InputError at the first mismatch."""
        for file, sha256 in zip(self.files, self.sha256, strict=True):
            if file_sha256(self.directory / file) != sha256:
                raise InputError(f"{self.directory / file} was altered: build the shards again.")

    def read_groups(self, shard: int, start: int, stop: int) -> Iterator[Sample | Reject]:
        """Yield groups start to stop (exclusive) of a shard; one that is damaged as a Reject."""
        where = str(self.directory / self.files[shard])
        for group in range(start, stop):
            begin, end = self.offsets[shard][group : group + 2].tolist()
            try:
                yield _read_group(where, begin, end)
            except Reject as reject:
                yield reject.at(where=where, key=f"number {group}")


def _load_offsets(shard: Path, groups: int) -> Int[np.ndarray, " group_and_end"]:
    path = offsets_path(shard)
    try:
        offsets = np.lib.format.read_array(BytesIO(read_whole(path)), allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        kind = type(error).__name__
        raise InputError(f"{path} is unreadable ({kind}): build the shards again.") from None
    if offsets.shape == (groups + 1,) and offsets.dtype.kind in "ui":
        offsets = offsets.astype(np.int64)
        if offsets[0] == 0 and (np.diff(offsets) > 0).all():
            return offsets
    raise InputError(f"{path} does not match its shard: build the shards again.")


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
        _SHARD.fullmatch(s[0]) and 1 <= s[1] <= n for s, n in zip(shards, sizes, strict=True)
    )
    if not shards or not whole:
        raise InputError(f"{path} lists no shards, or wrong ones: build the shards again.")
    for (file, _, _), size in zip(shards, sizes, strict=True):
        shard = path.parent / file
        if not shard.is_file() or shard.stat().st_size != size:
            raise InputError(f"{shard} is missing or cut short: copy or build the shards again.")
    return shards


def _read_group(path: str, begin: int, end: int) -> Sample:
    check_size(end - begin)
    try:
        data = read_range(path, begin, end)
    except OSError as error:
        raise Reject("unreadable file", detail=str(error)) from error
    if len(data) < end - begin:
        raise Reject("truncated tar", detail=f"{len(data)} of {end - begin} bytes")
    return read_group(data, where=path)
