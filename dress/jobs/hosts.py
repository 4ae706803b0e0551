"""Processes that torchrun or srun began, on one host or on several.

The first does the job: it builds the parents, evaluates and writes all files. The others train with
it each time that a model has to be trained, and wait in between, however long that takes. What to
do they read from torch's store on the first host, and meet there for each training anew.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed import PrefixStore, Store

from dress.artifact import Building
from dress.distributed import gather
from dress.errors import InputError
from dress.files import write_text
from dress.jobs.checks import world_size
from dress.jobs.data_sets import Parents
from dress.jobs.job import Job
from dress.jobs.processes import POLL_S, Order, Result, execute, join, order_to_fit

LEFT = "dress/left"  # how many of the others have gone


class Meeting:
    """The orders of the first process, one after the other; None ends the work."""

    def __init__(self) -> None:
        self.store: Store = next(iter(dist.rendezvous("env://")))[0]
        self.number = 0

    def send(self, order: Order) -> None:
        self.store.set(self._key(), json.dumps(order))
        self._join()

    def end(self) -> None:
        """Send the others away, and keep the store until they have heard it."""
        self.store.set(self._key(), json.dumps(None))
        while self.store.add(LEFT, 0) < world_size() - 1:
            time.sleep(POLL_S)

    def receive(self) -> Order | None:
        try:
            while not self.store.check([self._key()]):
                time.sleep(POLL_S)  # a signal would not end a call that waits
            order: Order | None = json.loads(self.store.get(self._key()))
        except dist.DistError as error:
            raise InputError(
                f"the first process, on {os.environ['MASTER_ADDR']}, has ended: look at what it "
                "printed."
            ) from error
        if order is None:
            self.store.add(LEFT, 1)
        else:
            self._join()
        return order

    def _key(self) -> str:
        return f"dress/order/{self.number}"

    def _join(self) -> None:
        join(PrefixStore(f"dress/work/{self.number}", self.store))
        self.number += 1


@cache
def meeting() -> Meeting:
    return Meeting()


def fit_on_all_hosts(
    job: Job, building: Building, config: Mapping[str, Any], parents: Parents
) -> Result:
    """Run `fit` together with the others; the figures are those of all of them."""
    order = order_to_fit(job, building, config, parents)
    mark = building.scratch / uuid.uuid4().hex
    write_text(mark, "")
    try:
        meeting().send(order | {"mark": str(mark)})
        check_shared(mark)
    finally:
        mark.unlink(missing_ok=True)
    return execute(order)


def let_go() -> None:
    """Tell the others that there is nothing more to train."""
    meeting().end()


def run(_: Job) -> None:
    """Be one of the others."""
    while (order := meeting().receive()) is not None:
        check_shared(Path(order["mark"]))
        execute(order)


def check_shared(mark: Path) -> None:
    """Refuse hosts that do not see the folder in which the first process builds."""
    if blind := sorted(filter(None, set(gather(None if mark.exists() else socket.gethostname())))):
        raise InputError(
            f"{', '.join(blind)} cannot see {mark.parent}: give paths.artifacts in a folder that "
            "all hosts share."
        )
