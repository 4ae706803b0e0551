"""What a process with shares frees goes back to the system, though later blocks are still held."""

from __future__ import annotations

import ctypes
import multiprocessing
import platform
import re
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from dress.modeling.sharding import M_MMAP_THRESHOLD, return_freed_memory

MEGABYTES = 200


def anonymous() -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0]) / 1024


def free_every_second_block(reply: Connection, returned: bool) -> None:
    """Send how many megabytes are still there of half of the blocks, after they were freed."""
    if returned:
        return_freed_memory()
    else:
        # as glibc itself does when a block of this size has been freed
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**24)
    before = anonymous()
    blocks = [np.ones(2**20, np.uint8) for _ in range(MEGABYTES)]
    del blocks[::2]
    reply.send(anonymous() - before - MEGABYTES / 2)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_blocks_are_given_back_at_once() -> None:
    fork = multiprocessing.get_context("fork")
    kept = {}
    for returned in (False, True):
        ours, theirs = fork.Pipe()
        process = fork.Process(target=free_every_second_block, args=(theirs, returned))
        process.start()
        kept[returned] = ours.recv()
        process.join()
    assert kept[False] > 0.8 * MEGABYTES / 2
    assert abs(kept[True]) < 0.1 * MEGABYTES / 2
