"""What every loader process does first."""

from __future__ import annotations

import os
import threading
import time


def end_with_parent(parent: int, worker: int) -> None:
    """End this process within a second of `parent`, however that ended.

    torch's workers watch it too, but then wait for what they made to be taken over: for ever where
    it fills a pipe. https://github.com/pytorch/pytorch/blob/main/torch/utils/data/_utils/worker.py
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True, name="end with parent").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
