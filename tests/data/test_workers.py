"""Loader processes do not outlive the process that they work for."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.processes import Process

SCRIPT = """
import multiprocessing, time
from types import SimpleNamespace
from torch.utils.data import IterableDataset
from dress.data.rejects import Rejects
from dress.errors import Reject
from dress.data.stream import Step, StepLoader

class LargeSteps(IterableDataset):
    stop, groups_per_step, stream = None, 1, range(10**6)

    def __iter__(self):
        while True:  # more than a pipe holds
            yield Step((), (Reject("large", detail="x" * 2**20),), 1, 0)

steps = iter(StepLoader(steps=LargeSteps(), rejects=Rejects(max_rejects=10**6), num_workers=2))
next(steps)
print(*(process.pid for process in multiprocessing.active_children()), flush=True)
time.sleep(60)
"""


def test_workers_end_with_a_killed_job_whose_pipes_are_full(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    job = Process(script, [], environment=os.environ)
    workers = [Path(f"/proc/{pid}") for pid in job.stdout.readline().split()]
    assert len(workers) == 2 and all(worker.exists() for worker in workers)
    time.sleep(1)  # for the pipes to fill
    job.kill()
    job.wait()
    killed = time.monotonic()
    while any(worker.exists() for worker in workers):
        assert time.monotonic() - killed < 60, "a worker outlived its job"
        time.sleep(0.1)
