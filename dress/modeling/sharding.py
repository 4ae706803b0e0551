"""A model whose weights rest in shares on all ranks, by FSDP2 (torch.distributed.fsdp).

Tower, projector and layers are gathered one by one while each of them runs; embeddings, head and
whatever is left are gathered for the whole of a step. So every rank has to run every part equally
often.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from dress.distributed import from_first
from dress.modeling.layers import layers_of
from dress.modeling.lvlm import LVLM

M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
RETURNED = 2**18  # bytes from which a block that is freed goes back to the system at once


def shard(model: LVLM, device: torch.device) -> None:
    """Leave each rank its share of the weights that rank 0 has, on its device."""
    return_freed_memory()
    model.ways, model.differs = from_first((model.ways, model.differs))
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    trains = any(parameter.requires_grad for parameter in model.parameters())
    # weights that are gathered together have one type, and the LM may have another than the heads
    heads = [part for part in (model.projector, model.scalar_head) if part is not None]
    for part in (model.vision, *heads, *(layers_of(model.language) or ()), model):
        for tensor in (*part.parameters(), *part.buffers()):
            if not isinstance(tensor, DTensor) and tensor.is_floating_point():
                dist.broadcast(tensor.detach(), src=0)
        fully_shard(part, mesh=mesh, reshard_after_forward=part is not model or not trains)
    model.sharded = True
    # the tower's, on which nothing works in place
    warnings.filterwarnings(
        "ignore", message=".*returned a view tensor", module="torch.distributed"
    )


def return_freed_memory() -> None:
    """Let this process give back what it frees of layers that were put together.

    glibc keeps freed blocks, the larger the longer a process runs, which a step of shares would
    have twice. Where the C library is another one nothing is done.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, RETURNED)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Hold all weights inside, so that ranks may run the model differently; all of them enter."""
    parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(not isinstance(part, LVLM), recurse=False)
            part.reshard()
