"""Work on several devices: one process owns the artifact and starts a rank for each of them.

The ranks get the composed configuration, so nothing is composed twice, a sweep works and no rank
has an output folder of Hydra's. This process watches them: it passes a signal on once, ends the
others when one has failed, and takes them along when it ends itself, even by kill -9.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import dress
from dress.artifact import Building
from dress.errors import InputError
from dress.interrupts import Interrupted
from dress.jobs.checks import world_size
from dress.jobs.data_sets import Parents
from dress.jobs.job import Job
from dress.jobs.rank import ORDER, Order, Result, execute, send

GRACE_S = 15.0  # for the other ranks to end by themselves once one has failed
Ranks = Sequence[subprocess.Popen[bytes]]


def fit_on_all_devices(
    job: Job, building: Building, config: Mapping[str, Any], parents: Parents
) -> Result:
    """Run `fit` in one process per device; the figures are those of all of them."""
    order = {
        "work": "fit",
        "cfg": OmegaConf.to_container(job.cfg, resolve=True),
        "overrides": list(job.overrides),
        "is_parent": job.is_parent,
        "config": config,
        "building": str(building.path),
        "init": str(parents.init.path) if parents.init else None,
        "reward": str(parents.reward.path) if parents.reward else None,
        "data": parents.data.location,
        "mixture": {name: data.location for name, data in parents.mixture.items()},
    }
    if world_size() > 1:
        send(order)
        return execute(order)
    return launch(order, job.cfg.trainer.devices)


def launch(order: Order, number: int) -> Result:
    """Start the ranks and wait for them; raise what one that failed has to say."""
    with tempfile.TemporaryDirectory(prefix="dress-") as name:
        folder = Path(name)
        (folder / ORDER).write_text(json.dumps(order), encoding="utf-8")
        with started(folder, number) as ranks:
            try:
                failed = wait(ranks)
            except (Interrupted, KeyboardInterrupt):
                for rank in ranks:
                    rank.send_signal(signal.SIGTERM)
                failed = wait(ranks)
                if failed is not None and ranks[failed].returncode == -signal.SIGTERM:
                    raise  # it had not begun to listen
        return outcome(folder, ranks, failed)


@contextmanager
def started(folder: Path, number: int) -> Iterator[Ranks]:
    """Yield the running ranks and leave none behind.

    Each has a session of its own, so that Ctrl-C reaches only this process, and an input that ends
    with this process.
    """
    root = str(Path(dress.__file__).resolve().parents[1])
    search = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    common = {"PYTHONPATH": search, "WORLD_SIZE": str(number)}
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        for rank in map(str, range(number)):
            with (folder / f"{rank}.log").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "dress.jobs.rank", str(folder)],
                    stdin=subprocess.PIPE,
                    stdout=log if ranks else None,
                    stderr=log if ranks else None,
                    env=os.environ | common | {"RANK": rank, "LOCAL_RANK": rank},
                    start_new_session=True,
                )
            ranks.append(process)
        yield ranks
    finally:
        for process in ranks:
            process.kill()
        for process in ranks:
            process.communicate()


def wait(ranks: Ranks) -> int | None:
    """Wait until all have ended; return the one that failed first, if any did."""
    first, deadline = None, float("inf")
    while True:
        running = [rank for rank in ranks if rank.poll() is None]
        failed = [number for number, rank in enumerate(ranks) if rank.returncode]
        if failed and first is None:
            first = min(failed, key=lambda number: ranks[number].returncode)  # signals are negative
            deadline = time.monotonic() + GRACE_S
        if not running:
            return first
        if time.monotonic() > deadline:
            for rank in running:
                rank.kill()
        time.sleep(0.05)


def outcome(folder: Path, ranks: Ranks, failed: int | None) -> Result:
    """Read what the ranks left: the result, a sentence, or nothing."""
    left = [_read(folder / f"{rank}.json") for rank in range(len(ranks))]
    for error in (result["error"] for result in left if "error" in result):
        raise InputError(error)
    for stopped in (result["interrupted"] for result in left if "interrupted" in result):
        raise Interrupted(stopped)
    if failed is not None:
        log = (folder / f"{failed}.log").read_text(encoding="utf-8", errors="replace")
        print(log[-4000:], file=sys.stderr, end="", flush=True)
        raise InputError(
            f"process {failed} of {len(ranks)} ended with code {ranks[failed].returncode}: look at "
            "what it printed above; the same command goes on from the last state."
        )
    return left[0]["figures"], any(result["stop"] for result in left)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
