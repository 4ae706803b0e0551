"""What every loader process does first."""

from __future__ import annotations

import multiprocessing
import os
import threading


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
