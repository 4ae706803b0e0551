"""What a process with shares frees goes back to the system, though later blocks are still held."""

from __future__ import annotations

import multiprocessing
import platform
import re
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from dress.modeling.sharding import return_freed_memory

MEGABYTES, BLOCK = 200, 4


def anonymous() -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0]) / 1024


def free_every_second_block(reply: Connection) -> None:
    """Send the megabytes that blocks take, and those that are left when half of them are freed."""
    np.ones(2**24, np.uint8)  # freed at once: glibc then keeps blocks of up to its size
    return_freed_memory()
    before = anonymous()
    blocks = [np.ones(BLOCK * 2**20, np.uint8) for _ in range(MEGABYTES // BLOCK)]
    taken = anonymous() - before
    del blocks[::2]
    reply.send((taken, anonymous() - before))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_blocks_are_given_back_at_once() -> None:
    fresh = multiprocessing.get_context("spawn")  # a fork would reuse what this process freed
    ours, theirs = fresh.Pipe()
    process = fresh.Process(target=free_every_second_block, args=(theirs,))
    process.start()
    taken, left = ours.recv()
    process.join()
    assert taken == pytest.approx(MEGABYTES, rel=0.1)
    assert left == pytest.approx(MEGABYTES / 2, rel=0.1)
