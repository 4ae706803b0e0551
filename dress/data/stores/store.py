"""Where a folder of shards lies: on this machine, or behind http(s):// or s3://.

fsspec opens the connections. Its files and caches are not used, for what the tests beside this
folder ask and they lack (2026.9): `cat_file` takes a whole file for the range that was asked where
a server ignores ranges, and its errors hold URLs with their keys; `filecache` and `blockcache` have
no bound on their bytes, take no lock against other processes, and know a file by its address, not
by the hash that an index gives.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from dress.data.reading import with_retries
from dress.data.stores.addresses import check_url, is_remote, public
from dress.errors import InputError


class Store(Protocol):
    """A folder of files that are read in parts."""

    def read(self, name: str, begin: int, end: int) -> bytes:
        """Return bytes begin to end (exclusive) of a file, fewer where it is shorter.

        Raises OSError where every attempt failed.
        """
        ...

    def sizes(self) -> Mapping[str, int] | None:
        """Return the bytes of every file; None where that is not told at once."""
        ...

    def where(self, name: str) -> str:
        """Name a file in messages, without any key."""
        ...


def open_store(location: str | os.PathLike[str]) -> Store:
    """Return the store for a path or URL; raise InputError for one of another kind."""
    place = os.fspath(location)
    if not is_remote(place):
        return LocalStore(place)
    check_url(place)
    try:
        if urlsplit(place).scheme == "s3":
            from dress.data.stores.s3 import S3Store

            return S3Store(place)
        from dress.data.stores.http import HttpStore

        return HttpStore(place)
    except ImportError as error:
        raise InputError(
            f"{public(place)} needs the package {error.name}: pip install -e '.[remote]'."
        ) from error


class LocalStore:
    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)

    def read(self, name: str, begin: int, end: int) -> bytes:
        path = self._directory / name

        def read() -> bytes:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(begin)
                # no more than there is: read() sets aside as much memory as it is asked for
                return file.read(max(0, min(end, size) - begin))

        return with_retries(read, path)

    def sizes(self) -> Mapping[str, int]:
        """Look at every file at once, which for many shards is what takes time."""
        with os.scandir(self._directory) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}

    def where(self, name: str) -> str:
        return str(self._directory / name)
