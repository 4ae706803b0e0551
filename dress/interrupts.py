"""Turn Ctrl-C and SIGTERM into a clean end: at once, or in training between two steps."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STDERR = 2
IMPORTING = "<frozen importlib._bootstrap>"  # the file of the frames of an import
COMPOSING = "omegaconf"  # the package of the frames of a composition
SIGNALS = (signal.SIGINT, signal.SIGTERM)
RETRY_S = 0.05
INTERRUPTED = "interrupted; nothing half-made is left, the same command goes on from what is done"


class Interrupted(BaseException):
    """A job was told to stop. Its text is the line for the user; a job then exits with 130.

    Not an Exception, so that nothing takes it for a failed step; and not KeyboardInterrupt, for
    which Lightning exits by itself with 1.
    """

    exit_code = 130


@contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Raise Interrupted(message) in the block at a signal, so that SIGTERM cleans up as well.

    An import is never cut short: some swallow the exception, some of C++ abort the process. Nor is
    OmegaConf, whose lists are broken behind an exception that is none of its own.
    """

    def receive(number: int, frame: FrameType | None) -> None:
        if _must_end_first(frame):
            signal.setitimer(signal.ITIMER_REAL, RETRY_S)  # comes back here as SIGALRM
        else:
            raise Interrupted(message)

    previous = _handle(receive, (*SIGNALS, signal.SIGALRM))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _restore(previous)


@contextmanager
def ending_cleanly() -> Iterator[None]:
    """End with one line and code 130 where the block is interrupted."""
    try:
        with interruptible(INTERRUPTED):
            yield
    except Interrupted as stopped:
        print(stopped, file=sys.stderr, flush=True)
        sys.exit(stopped.exit_code)


def _must_end_first(frame: FrameType | None) -> bool:
    while frame is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if frame.f_code.co_filename == IMPORTING or package == COMPOSING:
            return True
        frame = frame.f_back
    return False


class StopSignals:
    """Note the first signal; at the second, raise at once."""

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        self.received = False
        self._previous = _handle(self._receive)

    def uninstall(self) -> None:
        _restore(self._previous)
        self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise Interrupted("interrupted; the same command resumes from the last saved step")
        self.received = True
        # not print, which fails where the signal arrives in the middle of another print
        start = b"\n" if os.isatty(STDERR) else b""
        os.write(STDERR, start + b"stopping after this step; once more to stop at once\n")


def _handle(
    receive: Any, signals: tuple[signal.Signals, ...] = SIGNALS
) -> dict[signal.Signals, Any]:
    """Install a handler for signals; return the handlers before it."""
    # Python lets only the main thread handle signals
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, receive) for number in signals}


def _restore(previous: dict[signal.Signals, Any]) -> None:
    for number, handler in previous.items():
        signal.signal(number, handler)
