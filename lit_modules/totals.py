"""Sums of losses, counts and metrics over micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from dress.distributed import gather
from dress.types import LossOutput

Totals = dict[str, Float[Tensor, ""]]


def figures(output: LossOutput) -> Totals:
    """Name the sums of one micro-batch: `loss`, `count` and the objective's metrics."""
    sums = {"loss": output.loss_sum, "count": output.count, **output.metrics}
    dtype = torch.promote_types(output.loss_sum.dtype, torch.float32)
    return {name: value.detach().to(dtype) for name, value in sums.items()}


def read_step(rows: Sequence[Totals], norm: Float[Tensor, ""]) -> tuple[dict[str, float], float]:
    """Sum over micro-batches and ranks and copy to the host: the one wait for the device in a step.

    The norm, which is equal on all ranks, comes along.
    """
    vector = torch.stack([torch.stack(list(row.values())) for row in rows]).sum(0)
    if dist.is_initialized():
        dist.all_reduce(vector)
    *totals, norm_value = torch.cat([vector, norm.to(vector)[None]]).tolist()
    return dict(zip(rows[0], totals, strict=True)), norm_value


def read_many(rows: Sequence[Totals]) -> dict[str, float]:
    """Sum over any number of batches, in float64, and over ranks, some of which may have none."""
    names = list(rows[0]) if rows else []
    columns = {name: torch.stack([row[name] for row in rows]) for name in names}
    return over_ranks({n: column.cpu().double().sum().item() for n, column in columns.items()})


def add(sums: dict[str, float], more: Mapping[str, float]) -> None:
    for name, value in more.items():
        sums[name] = sums.get(name, 0.0) + value


def over_ranks(own: dict[str, float]) -> dict[str, float]:
    total = dict[str, float]()
    for share in gather(own):
        add(total, share)
    return total


def means(totals: Mapping[str, float], stage: str) -> dict[str, float]:
    """Divide by the count of all, or a metric's own.

    What was never counted is left out, and so is a part of the loss that is all of it.
    """
    total = totals.get("count", 0.0)
    figures = {}
    for name, value in totals.items():
        count = totals.get(f"{name}_count", total)
        whole = f"{name}_count" in totals and count == total and name.endswith("_loss")
        if name != "count" and not name.endswith("_count") and count and not whole:
            figures[f"{stage}/{name}"] = value / count
    return figures
