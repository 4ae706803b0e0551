"""How processes that work for another one begin, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Start processes within that are ended by whoever starts them.

    A terminal sends Ctrl-C to all processes, and one that dies of it would be missed as a failure.
    They inherit the blocked signal, so that there is no moment in which it reaches them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent(worker: int) -> None:
    """End this process as soon as the one that started it has ended, however that came about.

    torch's workers watch it too, but then wait for what they made to be taken over: for ever where
    it fills a pipe. https://github.com/pytorch/pytorch/blob/main/torch/utils/data/_utils/worker.py
    """
    threading.Thread(target=_wait_and_end, daemon=True, name="end with parent").start()


def _wait_and_end() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
