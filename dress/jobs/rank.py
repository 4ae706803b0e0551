"""One of several processes that work together, started by launch.py or by torchrun.

What to do is an order: the composed configuration and the paths of what was built before, as JSON.
`python -m dress.jobs.rank FOLDER` reads it from a folder and leaves the outcome there.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import DictConfig

from dress.artifact import Artifact, Building
from dress.interrupts import INTERRUPTED, Interrupted, interruptible
from dress.jobs.data_sets import Parents, open_data_set
from dress.jobs.job import Job
from dress.jobs.start import quieten, sentence_of

ORDER = "order.json"
Order = Mapping[str, Any]
Result = tuple[dict[str, float], bool]


def execute(order: Order) -> Result:
    """Do this process's share of the work and leave the group."""
    job = Job(
        cfg=DictConfig(order["cfg"]), overrides=order["overrides"], is_parent=order["is_parent"]
    )
    try:
        if order["work"] == "answer":
            from dress.jobs.answer import answer  # imports this module

            answer(job, order)
            return {}, False
        from dress.jobs.fit import fit  # Lightning, transformers, open_clip: seconds

        parents = Parents(
            init=Artifact.open(order["init"]) if order["init"] else None,
            reward=Artifact.open(order["reward"]) if order["reward"] else None,
            data=open_data_set(order["data"]),
            mixture={name: open_data_set(place) for name, place in order["mixture"].items()},
        )
        return fit(job, Building(path=Path(order["building"])), order["config"], parents)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def join(meeting_place: str = "env://") -> None:
    """Meet the other ranks, named by RANK and WORLD_SIZE; Lightning then uses this group."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=meeting_place, rank=rank, world_size=size)


def send(order: Order | None) -> None:
    """Tell the ranks that torchrun started beside this one; None: there is nothing to train."""
    join()
    dist.broadcast_object_list([json.dumps(order)])


def follow() -> None:
    """Wait for the order of the first rank and carry it out."""
    join()
    received: list[Any] = [None]
    dist.broadcast_object_list(received)
    order = json.loads(received[0])
    if order is not None:
        execute(order)


def main(folder: Path) -> None:
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    quieten()
    outcome: dict[str, Any] = {}
    code = 0
    try:
        with interruptible(INTERRUPTED):
            order = json.loads((folder / ORDER).read_text(encoding="utf-8"))
            join(f"file://{folder / 'meeting'}")
            figures, stop = execute(order)
            outcome = {"figures": figures, "stop": stop}
    except Interrupted as stopped:
        outcome, code = {"interrupted": str(stopped)}, stopped.exit_code
    except Exception as error:
        if (sentence := sentence_of(error)) is None:
            raise
        outcome, code = {"error": sentence}, 1
    finally:
        (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(outcome), encoding="utf-8")
    sys.exit(code)


def _end_with_the_parent() -> None:
    """Wait for the end of the input, which the parent holds open, and end at once."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
