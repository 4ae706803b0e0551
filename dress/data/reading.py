"""Read again after a pause where a file system or a server fails for a moment."""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Callable
from typing import TypeVar

PAUSES = (0.1, 0.4, 1.6)  # seconds before each further attempt
_REMEDIES: dict[type[OSError], str] = {  # of errors that a pause cannot mend
    FileNotFoundError: "name a place that has it",
    PermissionError: "give an address and, in the environment, a key that may read it",
    io.UnsupportedOperation: "serve the shards from one that answers them, or copy them here",
    IsADirectoryError: "name a file",
    NotADirectoryError: "name a folder",
}
_Result = TypeVar("_Result")
_retries = 0

logger = logging.getLogger(__name__)


def with_retries(read: Callable[[], _Result], path: str | os.PathLike[str]) -> _Result:
    """Call `read` until it succeeds; an error that a pause cannot mend is raised at once.

    Raises OSError where every attempt failed.
    """
    global _retries
    for pause in PAUSES:
        try:
            return read()
        except tuple(_REMEDIES):
            raise
        except OSError as error:
            _retries += 1
            logger.warning("%s: %s; reading again in %.1f s", path, error.strerror, pause)
            time.sleep(pause)
    return read()


def explained(error: OSError) -> str:
    """Say what failed and what helps."""
    remedies = (remedy for kind, remedy in _REMEDIES.items() if isinstance(error, kind))
    return f"{error.strerror}: {next(remedies, 'try again')}"


def take_retries() -> int:
    """Return how often this process has read again since it was last asked."""
    global _retries
    taken, _retries = _retries, 0
    return taken
