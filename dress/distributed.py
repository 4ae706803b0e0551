"""What several processes that work together, or a single one, tell each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


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


def summed_tensors(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Add up each tensor over the ranks, all of one type and device, in one message."""
    message = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(message)
    parts = message.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def gather(value: Any) -> list[Any]:
    """Collect one object per rank, the same list on each of them."""
    if not dist.is_initialized():
        return [value]
    gathered = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def from_first(value: Any) -> Any:
    """Return the object that rank 0 has."""
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor, or what the shares of all ranks make, on the CPU of rank 0."""
    tensor = tensor.detach()
    if not isinstance(tensor, DTensor):
        return tensor.cpu()
    joined = tensor.full_tensor()
    return joined.cpu() if place()[0] == 0 else joined.new_empty(0)


def share(tensor: Tensor, like: Tensor) -> Tensor:
    """Cut a tensor that every rank has as `like` is cut; one of another shape stays whole."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    cut = distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
    return cut.clone()  # or the whole would stay in memory
