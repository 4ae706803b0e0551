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


def from_owners(tensors: Sequence[Tensor], owners: Sequence[int]) -> list[Tensor]:
    """Give every rank each tensor as the rank that owns it has it, in one message of each owner.

    All are of one type and device; shapes are the same on every rank.
    """
    given = list(tensors)
    messages = []
    for owner in sorted(set(owners)):
        numbers = [number for number, its_owner in enumerate(owners) if its_owner == owner]
        flat = torch.cat([tensors[number].flatten() for number in numbers])
        messages.append((numbers, flat, dist.broadcast(flat, src=owner, async_op=True)))
    for numbers, flat, arriving in messages:
        assert arriving is not None  # every rank is a member
        arriving.wait()
        parts = flat.split([tensors[number].numel() for number in numbers])
        for number, part in zip(numbers, parts, strict=True):
            given[number] = part.view(tensors[number].shape)
    return given


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
    """Cut a tensor that every rank has as `like` is cut.

    One that is cut already stays so, and one of another shape whole.
    """
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor) or tensor.shape != like.shape:
        return tensor
    cut = distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
    return cut.clone()  # or the whole would stay in memory
