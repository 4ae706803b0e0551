"""What a busy neighbour costs a step of training, by how OpenMP's threads wait for each other.

    python benchmarks/speed/neighbour.py [GOMP_SPINCOUNT ...]

A step of stage 2 at `model=tiny` (16 images, 4 responses each) by the clock, alone and beside one
process that keeps a core busy; the ways take turns.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from statistics import median

from dress.jobs.start import SPINS

ROUNDS, STEPS, WARM_UP = 3, 4, 2
GROUPS = 16
WORK = "work"
USUAL = "OpenMP's default"


def work() -> None:
    """Time steps whenever a line arrives."""
    from cases import CASES
    from profile_step import Step

    step = Step(replace(CASES["tiny_sft_k4"], groups=4 * GROUPS))

    def timed() -> float:
        groups = []
        for _ in range(GROUPS // step.case.groups_per_step):
            step.encode()
            groups += step.groups
        step.groups = groups
        began = time.perf_counter()
        for part in (step.collate, step.forward, step.backward, step.update):
            part()
        return time.perf_counter() - began

    for _ in range(WARM_UP):
        timed()
    for _ in sys.stdin:
        print(median(timed() for _ in range(STEPS)), flush=True)


@contextmanager
def worker(way: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, __file__, WORK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | way,
    )
    try:
        yield process
    finally:
        process.kill()


@contextmanager
def neighbour() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def ask(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main(counts: Sequence[str]) -> None:
    ways: dict[str, Mapping[str, str]] = {
        "one thread": {"OMP_NUM_THREADS": "1"},
        USUAL: {},
        **{f"GOMP_SPINCOUNT={n}": {"GOMP_SPINCOUNT": n} for n in (*counts, SPINS)},
    }
    alone: dict[str, list[float]] = {name: [] for name in ways}
    beside: dict[str, list[float]] = {name: [] for name in ways}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(worker(way)) for name, way in ways.items()}
        for process in workers.values():
            ask(process)
        for _ in range(ROUNDS):
            for name, process in workers.items():
                alone[name].append(ask(process))
            for name, process in workers.items():
                with neighbour():
                    beside[name].append(ask(process))
    usual = median(alone[USUAL])
    print("| | alone, ms | beside, ms | alone / default alone | beside / default alone |")
    print("| --- | --- | --- | --- | --- |")
    for name in ways:
        took = [1000 * median(times) for times in (alone[name], beside[name])]
        ratios = [milliseconds / 1000 / usual for milliseconds in took]
        print(f"| {name} | {took[0]:.0f} | {took[1]:.0f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")


if __name__ == "__main__":
    work() if sys.argv[1:] == [WORK] else main(sys.argv[1:])
