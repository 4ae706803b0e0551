"""Run one part of a worker's training whenever its parent asks, and report what it took."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, TextIO


def own_stdout() -> TextIO:
    """Keep the real stdout for reports; whatever else prints goes to stderr."""
    reports = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return reports


class Segments:
    """Count steps; after `steps_per_segment` of them report, and wait for the next word.

    The first segment is warm-up. `other_load` is the share of the machine's time, in cores, that
    went to other processes meanwhile, on the cores this process may use.
    """

    def __init__(self, *, steps_per_segment: int, reports: TextIO) -> None:
        self.steps_per_segment, self.reports = steps_per_segment, reports
        self.steps = 0
        self.note: dict[str, float] = {}
        self._begin()

    def _begin(self) -> None:
        self._wall, self._cpu, self._busy = time.perf_counter(), time.process_time(), busy_seconds()

    def step(self) -> bool:
        """Count one step; return False where training is to end."""
        self.steps += 1
        if self.steps % self.steps_per_segment:
            return True
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        other = max(0.0, busy_seconds() - self._busy - cpu) / wall
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self._report(wall_s=wall, cpu_s=cpu, other_load=other, peak_mb=peak, **self.note)
        self.note.clear()
        go_on = sys.stdin.readline().strip() == "go"
        self._begin()
        return go_on

    def _report(self, **figures: Any) -> None:
        self.reports.write(json.dumps(figures) + "\n")


def busy_seconds() -> float:
    """Seconds that the cores of this process were busy with anything since boot."""
    tick = os.sysconf("SC_CLK_TCK")
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    rows = (line.split() for line in Path("/proc/stat").read_text().splitlines())
    return sum(sum(map(int, row[1:4] + row[6:8])) / tick for row in rows if row and row[0] in cores)
