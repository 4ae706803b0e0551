"""Turn Ctrl-C and SIGTERM into a stop between two steps."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

STDERR = 2
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Training was told to stop. Its text is the line for the user; a job then exits with 130.

    Not an Exception, so that nothing takes it for a failed step; and not KeyboardInterrupt, for
    which Lightning exits by itself with 1.
    """

    exit_code = 130


class StopSignals:
    """Note the first signal; at the second, raise at once."""

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        self.received = False
        # Python lets only the main thread handle signals
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def uninstall(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise Interrupted("interrupted; the same command resumes from the last saved step")
        self.received = True
        # not print, which fails where the signal arrives in the middle of another print
        os.write(STDERR, b"stopping after this step; once more to stop at once\n")
