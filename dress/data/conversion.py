"""Convert the rows of a source in order, in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import cycle, islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from dress.data.schema import check
from dress.data.sources.source import Part, Source
from dress.data.workers import deaf_to_interrupts
from dress.errors import InputError, Reject
from dress.settings import Whole, checked
from dress.types import Sample

Items = tuple[Sample | Reject, ...]  # what becomes of one row
Workers = Whole | Literal["auto"]
CHUNK = 32  # rows that a process converts at a time
FEW = 1024  # rows that are converted sooner than other processes start
MOST = 8  # processes unless more are asked for: each reads over the rows of the others


@checked
def converted(
    source: Source, part: Part, *, workers: Workers = 0, first: int = 0
) -> Iterator[Items]:
    """Yield what becomes of each row from number `first` on: the same whatever `workers`.

    Process w of W converts the chunks w, w + W, ... and is at most one chunk ahead. `auto` is one
    process for each CPU, MOST at most, from row FEW on.
    """
    if workers == "auto":
        return _in_more_processes(source, part, first=first)
    if workers == 0:
        return _in_this_process(source, part, islice(source.rows(part), first, None))
    return _in_processes(source, part, workers=workers, first=first)


def _in_more_processes(source: Source, part: Part, *, first: int) -> Iterator[Items]:
    rows = islice(source.rows(part), first, None)
    yield from _in_this_process(source, part, islice(rows, FEW))
    if (workers := min(_cpus(), MOST)) == 1:
        yield from _in_this_process(source, part, rows)
    elif next(rows, None) is not None:
        yield from _in_processes(source, part, workers=workers, first=first + FEW)


def _cpus() -> int:
    """Return how many CPUs this process may use."""
    limited = hasattr(os, "sched_getaffinity")  # not on macOS
    return len(os.sched_getaffinity(0)) if limited else os.cpu_count() or 1


def _in_this_process(source: Source, part: Part, rows: Iterable[Any]) -> Iterator[Items]:
    return (_items(source, part, row) for row in rows)


def _items(source: Source, part: Part, row: Any) -> Items:
    return tuple(_storable(item, where=f"part {part}") for item in source.convert(part, row))


def _storable(item: Sample | Reject, *, where: str) -> Sample | Reject:
    """Reject a sample that holds what shards cannot, such as half a surrogate pair or NaN."""
    try:
        if isinstance(item, Sample):
            check(item, where=where)
    except Reject as reject:
        return reject
    return item


def _in_processes(source: Source, part: Part, *, workers: int, first: int) -> Iterator[Items]:
    # a server without threads or state of ours imports torch once, then forks
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    resource_tracker.ensure_running()  # starting it below would let Ctrl-C through again
    with ExitStack() as stack:
        receivers = []
        for worker in range(workers):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(
                target=_work,
                args=(sender, source, part, first + worker * CHUNK, workers),
                daemon=True,
            )
            with deaf_to_interrupts():
                process.start()
            sender.close()  # so that the end of the process is the end of the pipe
            stack.callback(_end, process)
            stack.callback(receiver.close)
            receivers.append(receiver)
        for receiver in cycle(receivers):
            chunk = _receive(receiver)
            yield from chunk
            if len(chunk) < CHUNK:
                return


def _receive(receiver: Connection) -> list[Items]:
    try:
        chunk = receiver.recv()
    except EOFError:
        raise InputError(
            "a process that converts rows was ended from outside (out of memory?): give fewer "
            "shards.workers; the same command goes on from the last saved row."
        ) from None
    if isinstance(chunk, Exception):
        raise chunk
    return chunk


def _end(process: BaseProcess) -> None:
    process.terminate()
    process.join()


def _work(sender: Connection, source: Source, part: Part, start: int, workers: int) -> None:
    """Send every chunk of this process, the first that is not full last; or what went wrong."""
    try:
        rows = islice(source.rows(part), start, None)
        while True:
            chunk = [_items(source, part, row) for row in islice(rows, CHUNK)]
            sender.send(chunk)
            if len(chunk) < CHUNK:
                return
            for _ in islice(rows, (workers - 1) * CHUNK):
                pass
    except (BrokenPipeError, ConnectionResetError):
        return  # nobody wants the rest
    except InputError as error:
        sender.send(error)
    except Exception:
        sender.send(RuntimeError(traceback.format_exc()))
