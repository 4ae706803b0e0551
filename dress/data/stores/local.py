"""A folder on this machine, or on a file system that looks like it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dress.data.reading import with_retries


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
