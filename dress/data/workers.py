"""Processes that work for another one: how they begin and end, and send large batches."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from dress.types import TokenBatch

LARGE = 2**20  # bytes
_HEAD = 64  # bytes before a slot's content, of which the first tells whether it is in use

Slot = UInt8[Tensor, " head_and_content"]


@dataclass(frozen=True)
class _Parcel:
    """A large tensor, its content being in a slot of its sender."""

    sender: int
    number: int
    new: Slot | None
    dtype: torch.dtype
    shape: torch.Size


class Sender:
    """Pack batches in one worker process; it has as many slots as are ever under way at once."""

    def __init__(self, *, worker: int) -> None:
        self.worker = worker
        self.slots: list[Slot] = []

    def pack(self, batch: Any) -> Any:
        """Return the fields of a batch: small tensors as arrays, large ones left in slots.

        What is no TokenBatch, such as prompts, stays as it is.
        """
        if not isinstance(batch, TokenBatch):
            return batch
        return {
            name: self._packed(value) if isinstance(value, Tensor) else value
            for name, value in vars(batch).items()
        }

    def _packed(self, tensor: Tensor) -> Any:
        if tensor.nbytes < LARGE:
            return tensor.numpy()
        size = _HEAD + tensor.nbytes
        number = next((n for n, slot in enumerate(self.slots) if not slot[0]), len(self.slots))
        new = None
        if number == len(self.slots) or len(self.slots[number]) < size:
            new = torch.zeros(size, dtype=torch.uint8).share_memory_()
            self.slots[number : number + 1] = [new]
        slot = self.slots[number]
        _content(slot, tensor.dtype, tensor.shape).copy_(tensor)
        slot[0] = 1
        return _Parcel(self.worker, number, new, tensor.dtype, tensor.shape)


class Receiver:
    """Unpack what the workers of one loader send, in the order in which each has sent it."""

    def __init__(self) -> None:
        self._slots: dict[tuple[int, int], Slot] = {}

    def unpack(self, fields: Any) -> Any:
        if not isinstance(fields, Mapping):
            return fields
        return TokenBatch(**{name: self._unpacked(value) for name, value in fields.items()})

    def _unpacked(self, value: Any) -> Any:
        if not isinstance(value, _Parcel):
            return value if isinstance(value, tuple) else torch.from_numpy(value)
        place = value.sender, value.number
        if value.new is not None:
            self._slots[place] = value.new
        slot = self._slots[place]
        tensor = _content(slot, value.dtype, value.shape).clone()
        slot[0] = 0
        return tensor


def _content(slot: Slot, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    size = shape.numel() * dtype.itemsize
    return slot[_HEAD : _HEAD + size].view(dtype).view(shape)


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Start processes within that are ended by whoever starts them.

    A terminal sends Ctrl-C to all processes, and one that dies of it would be missed as a failure.
    They inherit the blocked signal, so that there is no moment in which it reaches them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent(worker: int) -> None:
    """End this process as soon as the one that started it has ended, however that came about.

    torch's workers watch it too, but then wait for what they made to be taken over: for ever where
    it fills a pipe. https://github.com/pytorch/pytorch/blob/main/torch/utils/data/_utils/worker.py
    """
    threading.Thread(target=_wait_and_end, daemon=True, name="end with parent").start()


def _wait_and_end() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
