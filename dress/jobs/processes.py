"""Work in several processes of this machine, one for each of `trainer.devices`.

Lightning's own launcher starts the whole command again for every rank. A command here is a chain of
jobs, each of which may train on other devices or be there already, and a sweep is many of them; so
the ranks are started at the first piece of work, by torch.distributed.elastic as torchrun does it,
and kept for the next ones: their imports take seconds. What to do is an order: the composed
configuration and the paths of what was built before, as JSON. Processes that are there already, of
torchrun or SLURM, get the same orders (hosts.py).
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import DictConfig, OmegaConf
from torch.distributed import Store
from torch.distributed.elastic.multiprocessing import (
    DefaultLogsSpecs,
    PContext,
    RunProcsResult,
    SignalException,
    Std,
    start_processes,
)

import dress
from dress.artifact import Building
from dress.errors import InputError
from dress.files import write_text
from dress.interrupts import INTERRUPTED, Interrupted, interruptible
from dress.jobs.data_sets import Parents
from dress.jobs.job import Job
from dress.jobs.start import quieten, sentence_of

ORDER = "order.json"
END = "end"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
POLL_S = 0.1
Order = Mapping[str, Any]
Result = tuple[dict[str, float], bool]


def fit_on_all_devices(
    job: Job, building: Building, config: Mapping[str, Any], parents: Parents
) -> Result:
    """Run `fit` in one process per device; the figures are those of all of them."""
    return launch(order_to_fit(job, building, config, parents), job.cfg.trainer.devices)


def order_to_fit(
    job: Job, building: Building, config: Mapping[str, Any], parents: Parents
) -> dict[str, Any]:
    return order_of(job, "fit") | {
        "config": config,
        "building": str(building.path),
        "init": str(parents.init.path) if parents.init else None,
        "reward": str(parents.reward.path) if parents.reward else None,
        "data": parents.data.location,
        "mixture": {name: data.location for name, data in parents.mixture.items()},
    }


def order_of(job: Job, work: str) -> dict[str, Any]:
    return {
        "work": work,
        "cfg": OmegaConf.to_container(job.cfg, resolve=True),
        "overrides": list(job.overrides),
        "is_parent": job.is_parent,
    }


@dataclass
class Ranks:
    """Processes that carry out one order after the other, which they find in a folder."""

    context: PContext
    folder: Path
    number: int
    surroundings: tuple[str, Mapping[str, str]]
    orders: int = 0

    def can_be_used(self, number: int) -> bool:
        alike = self.number == number and self.surroundings == surroundings()
        return alike and self.context.wait(timeout=0) is None

    def carry_out(self, order: Order) -> Result:
        """Give all of them an order; raise what one that failed has to say."""
        own = self.folder / str(self.orders)
        self.orders += 1
        own.mkdir()
        write_text(own / ORDER, json.dumps(order))
        return outcome(own, self.number, self.wait(own))

    def wait(self, own: Path) -> RunProcsResult | None:
        """Wait until all ranks have left their outcome, or one has failed, and pass signals on.

        A rank ends after the step that it is at, at a second signal at once.
        """
        left = [own / f"{rank}.json" for rank in range(self.number)]
        while True:
            try:
                if all(path.exists() for path in left):
                    return None
                if (result := self.context.wait(timeout=0)) is not None:
                    return result
                time.sleep(POLL_S)
            except SignalException:
                for pid in self.context.pids().values():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)

    def end(self, *, patience: float) -> None:
        """Send the ranks away, and kill those that are still there some seconds later."""
        (self.folder / END).touch()
        self.context.wait(timeout=patience, period=POLL_S)
        self.context.close(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


_kept: list[Ranks] = []  # at most one
os.register_at_fork(after_in_child=_kept.clear)  # which are no matter of a forked process


def launch(order: Order, number: int) -> Result:
    """Let `number` ranks carry out an order: those of the order before, or new ones."""
    with signals_raised():
        if not (_kept and _kept[0].can_be_used(number)):
            end_ranks()
            _kept.append(started(number))
        try:
            return _kept[0].carry_out(order)
        except BaseException:
            end_ranks(patience=0.0)
            raise


@atexit.register
def end_ranks(patience: float = 10.0) -> None:
    """End the ranks, which else wait for another order."""
    while _kept:
        _kept.pop().end(patience=patience)


def surroundings() -> tuple[str, Mapping[str, str]]:
    """Return what a process inherits that is started now."""
    return os.getcwd(), dict(os.environ)


def started(number: int) -> Ranks:
    """Start the ranks, each in a session of its own: Ctrl-C reaches this process alone."""
    folder = Path(tempfile.mkdtemp(prefix="dress-"))
    root = str(Path(dress.__file__).resolve().parents[1])
    search = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    context = start_processes(
        name="rank",
        entrypoint=sys.executable,
        args={rank: ("-m", "dress.jobs.processes", str(folder)) for rank in range(number)},
        envs={
            rank: {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(number),
                "PYTHONPATH": search,
                "DRESS_PARENT": str(os.getpid()),
            }
            for rank in range(number)
        },
        logs_specs=DefaultLogsSpecs(
            log_dir=str(folder / "logs"),
            redirects={rank: Std.ALL if rank else Std.NONE for rank in range(number)},
        ),
    )
    return Ranks(context, folder, number, surroundings())


@contextmanager
def signals_raised() -> Iterator[None]:
    """Raise SignalException at a signal, as torch's launcher does that replaces the handlers."""

    def stop(number: int, _: Any) -> None:
        raise SignalException(f"signal {number}", signal.Signals(number))

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def outcome(folder: Path, number: int, result: RunProcsResult | None) -> Result:
    """Read what the ranks left: the result, a sentence, or nothing."""
    left = [_read(folder / f"{rank}.json") for rank in range(number)]
    for error in (rank["error"] for rank in left if "error" in rank):
        raise InputError(error)
    for stopped in (rank["interrupted"] for rank in left if "interrupted" in rank):
        raise Interrupted(stopped)
    if result is not None and result.is_failed():
        first = min(result.failures.values(), key=lambda failure: failure.timestamp)
        log = Path(result.stderrs[first.local_rank] or os.devnull)
        print(log.read_text(encoding="utf-8", errors="replace")[-4000:], file=sys.stderr, end="")
        raise InputError(
            f"process {first.local_rank} of {number} ended with code {first.exitcode}: look at "
            "what it printed above; the same command goes on from the last state."
        )
    return left[0]["figures"], any(rank["stop"] for rank in left)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def execute(order: Order) -> Result:
    """Do this process's share of the work and leave the group."""
    job = Job(
        cfg=DictConfig(order["cfg"]), overrides=order["overrides"], is_parent=order["is_parent"]
    )
    work = import_module(f"dress.jobs.{order['work']}")  # which may take seconds
    try:
        result: Result = work.carry_out(job, order)
        return result
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def join(meeting_place: str | Store) -> None:
    """Meet the other ranks, named by RANK and WORLD_SIZE; Lightning then uses this group."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if isinstance(meeting_place, str):
        dist.init_process_group(backend, init_method=meeting_place, rank=rank, world_size=size)
    else:
        dist.init_process_group(backend, store=meeting_place, rank=rank, world_size=size)


def main(folder: Path) -> None:
    """Be one of the ranks of `launch`, order after order, until one fails or the parent ends."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    quieten()
    for number in count():
        own = folder / str(number)
        while not (own / ORDER).exists():
            if (folder / END).exists():
                return
            time.sleep(POLL_S)
        if code := follow(own):
            sys.exit(code)


def follow(own: Path) -> int:
    """Read the order of a folder and leave the outcome there; return 1 after a failure."""
    left: dict[str, Any] = {}
    try:
        with interruptible(INTERRUPTED):
            order = json.loads((own / ORDER).read_text(encoding="utf-8"))
            join(f"file://{own / 'meeting'}")
            figures, stop = execute(order)
            left = {"figures": figures, "stop": stop}
    except Interrupted as stopped:
        left = {"interrupted": str(stopped)}  # no failure, for which the other ranks would be ended
    except Exception as error:
        if (sentence := sentence_of(error)) is None:
            raise
        left = {"error": sentence}
    finally:
        if left:
            write_text(own / f"{os.environ['RANK']}.json", json.dumps(left))
    return int("error" in left)


def _end_with_the_parent() -> None:
    """End at once when the process that started this one has ended, even by kill -9."""
    while os.getppid() == int(os.environ["DRESS_PARENT"]):
        time.sleep(POLL_S)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
