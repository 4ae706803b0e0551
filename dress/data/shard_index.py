"""Open a directory of shards and read any of its groups."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import webdataset.utils
from jaxtyping import Int
from webdataset.tariterators import base_plus_ext, tar_file_iterator

from dress.data.rejects import Reject
from dress.data.schema import SCHEMA_VERSION, from_json, parse_json
from dress.data.shards import INDEX_NAME, file_sha256, group_key, offsets_path
from dress.errors import InputError
from dress.types import Sample

webdataset.utils.enforce_security = True  # no pickled member is ever decoded, no pipe opened

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
MAX_GROUP_BYTES = 256 * 2**20
_BLOCK = 512  # of a tar file


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
        text = path.read_bytes()
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
                yield _read_group(_read_bytes(where, begin, end), where=where)
            except Reject as reject:
                yield reject.at(where=where, key=f"number {group}")


def _load_offsets(shard: Path, groups: int) -> Int[np.ndarray, " group_and_end"]:
    path = offsets_path(shard)
    try:
        offsets = np.load(path, allow_pickle=False).astype(np.int64)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is unreadable ({error}): build the shards again.") from None
    if offsets.shape != (groups + 1,) or offsets[0] != 0 or (np.diff(offsets) <= 0).any():
        raise InputError(f"{path} does not match its shard: build the shards again.")
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
    if not shards or any(Path(file).name != file or groups < 1 for file, groups, _ in shards):
        raise InputError(f"{path} lists no shards, or wrong ones: build the shards again.")
    for (file, _, _), size in zip(shards, sizes, strict=True):
        shard = path.parent / file
        if not shard.is_file() or shard.stat().st_size != size:
            raise InputError(f"{shard} is missing or cut short: copy or build the shards again.")
    return shards


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
