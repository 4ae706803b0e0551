"""Batches between processes: only large tensors take the way through shared memory.

Each tensor there costs a file descriptor and a connection to its sender, which for a dozen small
ones takes longer than to copy them with everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dress.types import TokenBatch

LARGE = 2**20  # bytes


def packed(batch: Any) -> Any:
    """Return the fields of a batch, small tensors as arrays; what is no TokenBatch as it is."""
    if not isinstance(batch, TokenBatch):
        return batch
    return {
        name: value.numpy() if isinstance(value, Tensor) and value.nbytes < LARGE else value
        for name, value in vars(batch).items()
    }


def unpacked(fields: Any) -> Any:
    if not isinstance(fields, Mapping):
        return fields
    tensors: dict[str, Any] = {
        name: value if isinstance(value, Tensor | tuple) else torch.from_numpy(value)
        for name, value in fields.items()
    }
    return TokenBatch(**tensors)
