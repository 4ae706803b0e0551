"""Copies of remote shards on this machine, bounded, shared by any number of processes.

A copy is named by the hash of its shard, so it is never out of date. It appears whole or not at
all; one process fetches at a time, holding the lock under which older copies are removed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from filelock import FileLock

from dress.data.stores.store import Store
from dress.errors import InputError
from dress.files import no_space
from dress.settings import Range, checked

CHUNK = 16 * 2**20
TRIES = 4  # another process may remove a copy at once; some file systems keep no time that is set
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COPY = re.compile(r"[0-9a-f]{64}\.tar")
_CHECKED_NS = 1_000_000_000  # time of modification that says: hashed, and not touched since

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardCache:
    """A folder for copies and the most bytes that they may take."""

    directory: Path
    max_bytes: int

    def __post_init__(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.directory} cannot hold copies of shards ({error.strerror}): set "
                "datamodule.cache.directory to a folder that you may write to."
            ) from None

    def make_room(self, size: int) -> bool:
        """Remove the copies used longest ago until `size` more bytes fit; False: they never do."""
        copies = [
            (status.st_atime_ns, status.st_size, Path(entry.path))
            for entry in os.scandir(self.directory)
            if _COPY.fullmatch(entry.name) and (status := entry.stat())
        ]
        taken = sum(copy[1] for copy in copies)
        for _, freed, path in sorted(copies) if size <= self.max_bytes else ():
            if taken + size <= self.max_bytes:
                break
            path.unlink()
            taken -= freed
        return taken + size <= self.max_bytes


@checked
def shard_cache(
    *, directory: str | None, gigabytes: Annotated[float, Range(0.001)]
) -> ShardCache | None:
    """Return the cache in a folder; None where no folder is given and no copies are kept."""
    return ShardCache(Path(directory), max_bytes=int(gigabytes * 1e9)) if directory else None


class CachedStore:
    """Read shards from their copies, fetched whole when first needed; all else from the store."""

    def __init__(
        self, store: Store, *, shards: Mapping[str, tuple[int, str]], cache: ShardCache
    ) -> None:
        self._store, self._cache = store, cache
        # bytes and SHA-256 by name; a hash names a file here, so it must be one
        self._shards = {name: s for name, s in shards.items() if _SHA256.fullmatch(s[1])}
        self._direct: set[str] = set()  # shards that cannot be kept

    def read(self, name: str, begin: int, end: int) -> bytes:
        if name in self._shards:
            for _ in range(TRIES):
                if name in self._direct:
                    break
                if (data := self._copied(name, begin, end)) is not None:
                    return data
                self._fetch(name)
            else:
                logger.warning("%s keeps no copy of %s: not kept", self._cache.directory, name)
                self._direct.add(name)
        return self._store.read(name, begin, end)

    def sizes(self) -> Mapping[str, int] | None:
        return self._store.sizes()

    def where(self, name: str) -> str:
        return self._store.where(name)

    def _path(self, name: str) -> Path:
        return self._cache.directory / f"{self._shards[name][1]}.tar"

    def _copied(self, name: str, begin: int, end: int) -> bytes | None:
        """Read from the copy; None where there is none, or one that something has touched."""
        try:
            with self._path(name).open("rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_size, status.st_mtime_ns) != (self._shards[name][0], _CHECKED_NS):
                    return None
                os.utime(file.fileno(), ns=(time.time_ns(), _CHECKED_NS))
                file.seek(begin)
                return file.read(end - begin)
        except FileNotFoundError:
            return None

    def _fetch(self, name: str) -> None:
        with FileLock(self._cache.directory / "fetching.lock"):
            if self._copied(name, 0, 0) is not None:
                return  # by another process, meanwhile
            for left in self._cache.directory.glob("*.partial"):
                left.unlink()  # by a process that was killed
            path = self._path(name)
            path.unlink(missing_ok=True)
            if not self._cache.make_room(self._shards[name][0]):
                self._direct.add(name)
                return
            partial = path.with_suffix(".partial")
            try:
                if self._download(name, partial):
                    os.utime(partial, ns=(time.time_ns(), _CHECKED_NS))
                    os.replace(partial, path)
                else:
                    logger.warning("%s differs from its hash: not kept", self.where(name))
                    self._direct.add(name)
            except OSError as error:
                if no_space(error) is None:  # else read it where it lies
                    raise
                logger.warning("%s is not kept: %s", self.where(name), error.strerror)
                self._direct.add(name)
            finally:
                partial.unlink(missing_ok=True)

    def _download(self, name: str, path: Path) -> bool:
        """Copy a shard in parts, each of them tried again by itself; tell whether it is right."""
        size, sha256 = self._shards[name]
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for begin in range(0, size, CHUNK):
                part = self._store.read(name, begin, min(begin + CHUNK, size))
                digest.update(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest() == sha256
