"""What several processes that work together, or a single one, tell each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist


def place() -> tuple[int, int]:
    """Return the number of this process, from 0, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def summed(counts: Sequence[int]) -> list[int]:
    """Add up each count over the ranks: one small message, however many ranks there are."""
    if not dist.is_initialized():
        return list(counts)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    vector = torch.tensor(counts, dtype=torch.int64, device=device)
    dist.all_reduce(vector)
    return vector.tolist()


def gather(value: Any) -> list[Any]:
    """Collect one object per rank, the same list on each of them."""
    if not dist.is_initialized():
        return [value]
    gathered = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered
