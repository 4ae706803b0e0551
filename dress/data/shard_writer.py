"""WebDataset tar shards of groups, and the index that finds any group in one seek.

A group is `{key}.json` followed by its images `{key}.jpg`, `{key}.1.jpg`, `{key}.2.png`, ... (the
suffix says the format). Beside `shard-000000.tar` lies `shard-000000.offsets.npy`: the byte
offset of each group and, last, the end of the last one. `index.json` is written at the very end.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast
from urllib.parse import quote

import numpy as np

from dress.data.schema import SCHEMA_VERSION, to_json
from dress.errors import InputError
from dress.files import naming, replacing, write_text
from dress.records import Sample

INDEX_NAME = "index.json"
OFFSETS_SUFFIX = ".offsets.npy"
MAX_KEY = 80  # a longer name would need a second tar header
MAX_MEMBER_BYTES = 64 * 2**20
MAX_GROUP_BYTES = 256 * 2**20


class ShardWriter:
    """Write groups into shards; the same groups give the same bytes.

    A context manager: leaving it with an exception leaves no index, so nothing reads half a set.
    A `resumable` one keeps what it wrote so far, and may be opened again with an earlier `state()`.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_groups: int = 1000,
        resumable: bool = False,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory, self.max_groups = Path(directory), max_groups
        self.resumable = resumable
        if (self.directory / INDEX_NAME).exists() and not resumable:
            raise InputError(f"{self.directory} already holds shards: remove it or name another.")
        self.directory.mkdir(parents=True, exist_ok=True)
        self._shards: list[dict[str, Any]] = []
        self._keys: set[str] = set()
        self._tar: tarfile.TarFile | None = None
        self._offsets: list[int] = []
        if resumable:
            self._resume(state or {"shards": [], "offsets": []})

    def state(self) -> dict[str, Any]:
        """Make durable what was written and return where it ends, as JSON."""
        if self._tar is not None:
            with naming(self._partial):
                _sync(cast(BinaryIO, self._tar.fileobj))
        return {"shards": list(self._shards), "offsets": list(self._offsets) if self._tar else []}

    def _resume(self, state: Mapping[str, Any]) -> None:
        """Cut off whatever was written after `state`."""
        self._shards = list(state["shards"])
        finished = [self.directory / shard["file"] for shard in self._shards]
        partial, last = self._partial, self.directory / self._file
        if state["offsets"] and not partial.exists():
            os.replace(last, partial)  # it was finished later
        kept = {*finished, *map(offsets_path, finished)} | (
            {partial} if state["offsets"] else set()
        )
        for path in set(self.directory.iterdir()) - kept:
            path.unlink()
        if state["offsets"]:
            self._offsets = list(state["offsets"])
            os.truncate(partial, self._offsets[-1])
            self._tar = self._open_tar("r+b")
        for path in kept - set(map(offsets_path, finished)):
            with tarfile.open(path, "r:") as tar:
                self._keys.update(n.removesuffix(".json") for n in tar.getnames() if is_record(n))

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._close_shard()
            self._write_index()
        elif self._tar is not None:
            with suppress(OSError):  # a full disk, of which the error tells
                cast(BinaryIO, self._tar.fileobj).close()
            if not self.resumable:
                self._partial.unlink()

    def write(self, sample: Sample) -> None:
        record, key = to_json(sample), group_key(sample.id)
        suffixes = [image_suffix(image, sample.id) for image in sample.images]
        if key in self._keys:
            raise InputError(f"Two samples have the id {sample.id!r}: give each its own.")
        text = json.dumps(record, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
        _check_sizes([text, *sample.images], sample.id)
        self._keys.add(key)
        tar = self._tar or self._open_shard()
        with naming(self._partial):
            self._add(tar, f"{key}.json", text)
            for number, (suffix, image) in enumerate(zip(suffixes, sample.images, strict=True)):
                self._add(tar, f"{key}.{number}.{suffix}" if number else f"{key}.{suffix}", image)
        self._offsets.append(tar.offset)
        if len(self._offsets) > self.max_groups:
            self._close_shard()

    @property
    def _file(self) -> str:
        return f"shard-{len(self._shards):06d}.tar"

    @property
    def _partial(self) -> Path:
        return self.directory / f"{self._file}.partial"

    def _open_shard(self) -> tarfile.TarFile:
        self._offsets = [0]
        self._tar = self._open_tar("wb")
        return self._tar

    def _open_tar(self, mode: str) -> tarfile.TarFile:
        file = cast(BinaryIO, self._partial.open(mode))
        file.seek(0, os.SEEK_END)
        return tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)

    @staticmethod
    def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)  # owner, mode and time keep their fixed defaults
        member.size = len(data)
        tar.addfile(member, BytesIO(data))

    def _close_shard(self) -> None:
        if self._tar is None:
            return
        with naming(self._partial), cast(BinaryIO, self._tar.fileobj) as file:
            self._tar.close()
            _sync(file)
        self._tar = None
        path = self.directory / self._file
        os.replace(self._partial, path)
        offsets = np.array(self._offsets, dtype=np.uint64)
        with replacing(offsets_path(path)) as temporary, temporary.open("wb") as file:
            np.save(file, offsets, allow_pickle=False)
        self._shards.append(
            {
                "file": path.name,
                "groups": len(offsets) - 1,
                "bytes": path.stat().st_size,
                "sha256": file_sha256(path),
            }
        )

    def _write_index(self) -> None:
        if not self._shards:
            raise InputError(f"No sample was written to {self.directory}: check the source.")
        groups = sum(shard["groups"] for shard in self._shards)
        index = {"schema": SCHEMA_VERSION, "groups": groups, "shards": self._shards}
        text = json.dumps(index, indent=1, sort_keys=True) + "\n"
        write_text(self.directory / INDEX_NAME, text)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _check_sizes(members: Sequence[bytes], sample_id: str) -> None:
    """Refuse what a reader would: a member or a group above its bound."""
    largest, whole = max(map(len, members)), sum(len(m) + 2 * tarfile.BLOCKSIZE for m in members)
    if largest > MAX_MEMBER_BYTES or whole > MAX_GROUP_BYTES:
        raise InputError(
            f"Sample {sample_id!r} is too large ({largest} bytes in one file, {whole} in all): "
            f"keep below {MAX_MEMBER_BYTES} and {MAX_GROUP_BYTES}."
        )


def group_key(sample_id: str) -> str:
    """Name a group in the tar: its id, or a readable part and a hash where that is too long."""
    key = quote(sample_id, safe="").replace(".", "%2E")
    if len(key) <= MAX_KEY:
        return key
    digest = hashlib.sha256(sample_id.encode()).hexdigest()[:24]
    return f"{key[: MAX_KEY - 25].rsplit('%', 1)[0]}-{digest}"


def is_record(name: str) -> bool:
    return name.endswith(".json")


def image_suffix(image: bytes, sample_id: str) -> str:
    """Name an image's format by its first bytes."""
    if image.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if image.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    raise InputError(f"Sample {sample_id!r} has an image that is neither JPEG, PNG nor WebP.")


def offsets_path(shard: Path) -> Path:
    return shard.with_suffix(OFFSETS_SUFFIX)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
