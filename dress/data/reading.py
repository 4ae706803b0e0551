"""Read parts of files, again after a pause where the file system fails for a moment."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

PAUSES = (0.1, 0.4, 1.6)  # seconds before each further attempt
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_Result = TypeVar("_Result")
_retries = 0

logger = logging.getLogger(__name__)


def read_range(path: str | os.PathLike[str], begin: int, end: int) -> bytes:
    """Return bytes begin to end (exclusive), fewer where the file is shorter.

    Raises OSError where every attempt failed.
    """

    def read() -> bytes:
        with open(path, "rb") as file:
            file.seek(begin)
            return file.read(end - begin)

    return again(read, path)


def read_whole(path: Path) -> bytes:
    """Return a small file; raise OSError where every attempt failed."""
    return again(path.read_bytes, path)


def again(read: Callable[[], _Result], path: str | os.PathLike[str]) -> _Result:
    """Call `read` until it succeeds; an error that a pause cannot mend is raised at once."""
    global _retries
    for pause in PAUSES:
        try:
            return read()
        except _PERMANENT:
            raise
        except OSError as error:
            _retries += 1
            logger.warning("%s: %s; reading again in %.1f s", path, error.strerror, pause)
            time.sleep(pause)
    return read()


def take_retries() -> int:
    """Return how often this process has read again since it was last asked."""
    global _retries
    taken, _retries = _retries, 0
    return taken
