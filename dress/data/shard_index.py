"""Open a directory of shards and read any of its groups."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Int

from dress.data.group_bytes import check_size, read_group
from dress.data.reading import explained
from dress.data.schema import SCHEMA_VERSION
from dress.data.shard_writer import INDEX_NAME, OFFSETS_SUFFIX
from dress.data.stores.addresses import is_remote
from dress.data.stores.cache import CachedStore, ShardCache
from dress.data.stores.store import Store, open_store
from dress.errors import InputError, Reject
from dress.types import Sample

MAX_INDEX = 256 * 2**20  # bytes; 100,000 shards take 20 million
_SHARD = re.compile(r"\w[\w.-]*\.tar", re.ASCII)
_MAX_NPY_HEADER = 2**16
_CHUNK = 16 * 2**20
_OFFSETS_KEPT = 64  # shards whose offsets are in memory: a shuffling window is read from few
_Shard = tuple[str, int, int, str]  # file, groups, bytes, hash


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """What `index.json` says; offsets are read with the shards, so that opening stays cheap."""

    store: Store
    files: tuple[str, ...]
    groups: Int[np.ndarray, " shard"]
    sizes: Int[np.ndarray, " shard"]  # bytes
    sha256: tuple[str, ...]
    fingerprint: str  # of index.json, which holds the hash of every shard
    cache: ShardCache | None = None
    _offsets: dict[int, Int[np.ndarray, " group_and_end"]] = field(default_factory=dict)

    @classmethod
    def open(
        cls, location: str | os.PathLike[str], *, cache: ShardCache | None = None
    ) -> ShardIndex:
        """Open shards on disk or behind a URL; those of a URL are kept in the cache.

        Raises InputError where they are missing, incomplete or altered in size.
        """
        store = open_store(location)
        text = _index_text(store, remote=is_remote(location))
        shards = _entries(store.where(INDEX_NAME), text)
        if (found := store.sizes()) is not None:
            _check_files(store, found, shards)
        files, groups, sizes, sha256 = zip(*shards, strict=True)
        if cache is not None and is_remote(location):
            of_shards = {file: (size, sha256) for file, _, size, sha256 in shards}
            store = CachedStore(store, shards=of_shards, cache=cache)
        return cls(
            store=store,
            files=files,
            groups=np.array(groups, dtype=np.int64),
            sizes=np.array(sizes, dtype=np.int64),
            sha256=sha256,
            fingerprint=hashlib.sha256(text).hexdigest(),
            cache=cache if is_remote(location) else None,
        )

    def __len__(self) -> int:
        return int(self.groups.sum())

    def verify(self) -> None:
        """Compare every shard with its recorded hash; raise InputError at the first mismatch."""
        for shard, sha256 in enumerate(self.sha256):
            if self._hash(shard) != sha256:
                raise InputError(f"{self.where(shard)} was altered: build the shards again.")
            try:
                self.offsets(shard)
            except Reject as reject:
                raise InputError(f"{reject}: build the shards again.") from None

    def _hash(self, shard: int) -> str:
        digest, size = hashlib.sha256(), int(self.sizes[shard])
        for begin in range(0, size, _CHUNK):
            digest.update(self.store.read(self.files[shard], begin, min(begin + _CHUNK, size)))
        return digest.hexdigest()

    def where(self, shard: int) -> str:
        """Name the file of a shard."""
        return self.store.where(self.files[shard])

    def offsets(self, shard: int) -> Int[np.ndarray, " group_and_end"]:
        """Return where the groups of a shard begin and the last one ends; Reject if damaged."""
        if (known := self._offsets.get(shard)) is not None:
            return known
        if len(self._offsets) >= _OFFSETS_KEPT:
            del self._offsets[next(iter(self._offsets))]
        self._offsets[shard] = _load_offsets(
            self.store,
            offsets_name(self.files[shard]),
            groups=int(self.groups[shard]),
            size=int(self.sizes[shard]),
        )
        return self._offsets[shard]

    def read_groups(self, shard: int, start: int, stop: int) -> Iterator[Sample | Reject]:
        """Yield groups start to stop (exclusive) of a shard; one that is damaged as a Reject."""
        for group in range(start, stop):
            try:
                begin, end = self.offsets(shard)[group : group + 2].tolist()
                yield self._read_group(shard, begin, end)
            except Reject as reject:
                yield reject.at(where=self.where(shard), key=f"number {group}")

    def _read_group(self, shard: int, begin: int, end: int) -> Sample:
        check_size(end - begin)
        try:
            data = self.store.read(self.files[shard], begin, end)
        except OSError as error:
            raise Reject("unreadable file", detail=explained(error)) from error
        if len(data) < end - begin:
            raise Reject("truncated tar", detail=f"{len(data)} of {end - begin} bytes")
        return read_group(data, where=self.where(shard))


def offsets_name(file: str) -> str:
    return f"{os.path.splitext(file)[0]}{OFFSETS_SUFFIX}"


def _index_text(store: Store, *, remote: bool) -> bytes:
    """Read index.json; raise InputError where that fails or would take too much memory."""
    where = store.where(INDEX_NAME)
    try:
        if remote:
            store.read(INDEX_NAME, 1, 2)  # a server without byte ranges shows here, not later
        text = store.read(INDEX_NAME, 0, MAX_INDEX)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise InputError(
            f"{where} does not exist: name a directory of shards or build them."
        ) from None
    except OSError as error:
        raise InputError(f"{where} cannot be read ({explained(error)}).") from None
    if len(text) == MAX_INDEX:
        raise InputError(f"{where} is too large: split the shards into several folders.")
    return text


def _load_offsets(
    store: Store, name: str, *, groups: int, size: int
) -> Int[np.ndarray, " group_and_end"]:
    where = store.where(name)
    try:
        data = store.read(name, 0, _MAX_NPY_HEADER + 8 * (groups + 1))
        offsets = np.lib.format.read_array(BytesIO(data), allow_pickle=False)
    except OSError as error:
        raise Reject("damaged offsets", where=where, detail=explained(error)) from error
    except (ValueError, EOFError, MemoryError) as error:
        detail = " ".join(str(error).split())[:120]
        raise Reject("damaged offsets", where=where, detail=detail) from error
    if offsets.shape == (groups + 1,) and offsets.dtype.kind in "ui":
        offsets = offsets.astype(np.int64)
        if offsets[0] == 0 and (np.diff(offsets) > 0).all() and offsets[-1] <= size:
            return offsets
    raise Reject("damaged offsets", where=where, detail="they do not fit the shard")


def _entries(where: str, text: bytes) -> list[_Shard]:
    """Return what the index says of each shard, checked without reading the shards."""
    try:
        index = json.loads(text)
        version = index["schema"]
        shards = [
            (str(s["file"]), int(s["groups"]), int(s["bytes"]), str(s["sha256"]))
            for s in index["shards"]
        ]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{where} is damaged ({error!r}): build the shards again.") from None
    if version != SCHEMA_VERSION:
        raise InputError(f"{where} has schema {version}, not {SCHEMA_VERSION}: build it again.")
    whole = all(
        _SHARD.fullmatch(file) and 0 <= groups <= size < 2**62 for file, groups, size, _ in shards
    )
    if not whole or not any(groups for _, groups, _, _ in shards):
        raise InputError(f"{where} lists no shards with groups, or wrong ones: build them again.")
    (file, number), *_ = Counter(file for file, *_ in shards).most_common(1)
    if number > 1:
        raise InputError(f"{where} lists {file} twice: build the shards again.")
    return shards


def _check_files(store: Store, found: Mapping[str, int], shards: Sequence[_Shard]) -> None:
    for file, groups, size, _ in shards:
        if found.get(file) != size:
            raise InputError(
                f"{store.where(file)} is missing or cut short: copy or build the shards again."
            )
        if found.get(offsets_name(file), 0) < 8 * (groups + 1):
            raise InputError(
                f"{store.where(offsets_name(file))} is missing or does not match its shard: copy "
                "or build the shards again."
            )


def splits_of(directory: Path) -> dict[str, Path]:
    """Find the folders of shards: `directory` itself, or those inside it, by their name."""
    if (directory / INDEX_NAME).is_file():
        return {directory.name: directory}
    found = {path.parent.name: path.parent for path in sorted(directory.glob(f"*/{INDEX_NAME}"))}
    if not found:
        raise InputError(
            f"{directory} holds no shards (no {INDEX_NAME} in it or one folder below): give the "
            "folder of an artifact of shards, or of one split."
        )
    return found


def read_all(directory: Path) -> Iterator[Sample]:
    """Yield every group in order; raise InputError naming the first that is damaged."""
    index = ShardIndex.open(directory)
    for shard, groups in enumerate(index.groups):
        for sample in index.read_groups(shard, 0, int(groups)):
            if isinstance(sample, Reject):
                raise InputError(f"{sample}: copy or build the shards again.")
            yield sample


def verify(directory: Path, *, on_group: Callable[[], None] = lambda: None) -> int:
    """Return the number of groups; raise InputError at the first fault.

    Checked are the hash and size of every shard, that no shard is left out of the index, that each
    group is where the index says and fits the schema, and that no id occurs twice.
    """
    index = ShardIndex.open(directory)
    index.verify()
    if extra := {path.name for path in directory.glob("*.tar*")} - set(index.files):
        raise InputError(
            f"{directory / min(extra)} is not in {INDEX_NAME}: remove it or build the shards again."
        )
    seen: set[str] = set()
    for sample in read_all(directory):
        if sample.id in seen:
            raise InputError(f"{directory} holds the id {sample.id!r} twice: build it again.")
        seen.add(sample.id)
        on_group()
    return len(seen)
