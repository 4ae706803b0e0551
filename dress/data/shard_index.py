"""Open a directory of shards and read any of its groups."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import webdataset.utils
from jaxtyping import Int
from webdataset.tariterators import base_plus_ext, tar_file_iterator

from dress.data.rejects import Reject
from dress.data.schema import SCHEMA_VERSION, from_json, parse_json
from dress.data.shards import (
    INDEX_NAME,
    OFFSETS_SUFFIX,
    file_sha256,
    group_key,
    offsets_path,
)
from dress.errors import InputError
from dress.types import Sample

webdataset.utils.enforce_security = True  # no pickled member is ever decoded, no pipe opened

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
MAX_GROUP_BYTES = 256 * 2**20
_OFFSETS_KEPT = 64  # shards whose offsets are in memory: a shuffling window is read from few
_BLOCK = 512  # of a tar file


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
        text = path.read_bytes()
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
                yield _read_group(_read_bytes(where, begin, end), where=where)
            except Reject as reject:
                yield reject.at(where=where, key=f"number {group}")


def _load_offsets(path: Path, groups: int) -> Int[np.ndarray, " group_and_end"]:
    try:
        offsets = np.load(path, allow_pickle=False).astype(np.int64)
    except (OSError, ValueError, EOFError) as error:
        raise Reject("damaged offsets", where=str(path), detail=str(error)) from error
    if offsets.shape != (groups + 1,) or offsets[0] != 0 or (np.diff(offsets) <= 0).any():
        raise Reject("damaged offsets", where=str(path), detail="they do not fit the shard")
    return offsets


def _entries(path: Path, text: bytes) -> list[tuple[str, int, str]]:
    """Return file, groups and hash of each shard, checked without reading the shards."""
    try:
        index = json.loads(text)
        version = index["schema"]
        shards = [(str(s["file"]), int(s["groups"]), str(s["sha256"])) for s in index["shards"]]
        sizes = [int(s["bytes"]) for s in index["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error!r}): build the shards again.") from None
    if version != SCHEMA_VERSION:
        raise InputError(f"{path} has schema {version}, not {SCHEMA_VERSION}: build it again.")
    is_wrong = any(os.path.basename(file) != file or groups < 0 for file, groups, _ in shards)
    if is_wrong or not any(groups for _, groups, _ in shards):
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


def _read_bytes(path: str, begin: int, end: int) -> bytes:
    if end - begin > MAX_GROUP_BYTES:
        raise Reject("group too large", detail=f"{end - begin} bytes")
    try:
        with open(path, "rb") as file:
            file.seek(begin)
            data = file.read(end - begin)
    except OSError as error:
        raise Reject("unreadable file", detail=str(error)) from error
    # The tar reader guesses compression from the first bytes and would inflate without limit.
    is_plain = data[257:262] == b"ustar" and data[:10].isascii() and b"&" not in data[:10]
    if len(data) < end - begin or not is_plain:
        raise Reject("damaged tar")
    return data


def _read_group(data: bytes, *, where: str) -> Sample:
    key, members = _members(data, where=where)
    record = parse_json(members.pop("json"), where=where, key=key)
    numbers = sorted(members, key=int)
    if numbers != [str(number) for number in range(len(members))]:
        raise Reject("image missing", key=key, where=where)
    sample = from_json(record, [members[number] for number in numbers], where=where)
    if group_key(sample.id) != key:
        raise Reject("id differs from member name", key=key, where=where, detail=sample.id)
    return sample


def _members(data: bytes, *, where: str) -> tuple[str, dict[str, bytes]]:
    """Split the bytes of one group into its record, under "json", and images, under "0", "1"."""
    try:
        files = list(tar_file_iterator(BytesIO(data)))
    except Exception as error:  # the tar reader raises nearly anything on damaged bytes
        raise Reject("damaged tar", where=where, detail=type(error).__name__) from error
    members: dict[str, bytes] = {}
    keys = set()
    for file in files:
        key, suffix = base_plus_ext(file["fname"])
        keys.add(key)
        members[_member_name(suffix, where=where, key=str(key))] = file["data"]
    # Links and other special members are passed over by the iterator: only the sum shows them.
    accounted = sum(_BLOCK + -(-len(file["data"]) // _BLOCK) * _BLOCK for file in files)
    if (
        accounted != len(data)
        or len(members) != len(files)
        or len(keys) != 1
        or "json" not in members
    ):
        raise Reject("unexpected members", where=where, key=str(min(map(str, keys), default="")))
    key = str(keys.pop())
    if "/" in key:
        raise Reject("unsafe member name", where=where, key=key)
    return key, members


def _member_name(suffix: str | None, *, where: str, key: str) -> str:
    number, _, extension = (suffix or "").rpartition(".")
    if suffix == "json":
        return "json"
    if extension not in IMAGE_SUFFIXES or not (number == "" or number.isdecimal()):
        raise Reject("unexpected members", where=where, key=key, detail=f"suffix {suffix!r}")
    return number or "0"
