"""Attention on token trees on a CPU: queries in blocks, each against only what it can see.

A dense mask over a row computes every score and throws most away: those of other trees, of other
branches and of later tokens. Here the queries are cut where branches end, and a block meets only
the keys that one of its tokens sees. Measured in docs/performance.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface

from dress.modeling.language import LanguageModel, attending_as, full_precision
from dress.modeling.layers import last_layer

NAME = "dress_tree_blocks"
BLOCK = 64  # queries, about
_plans: list[Plan] = []  # of the forward passes that are running


@dataclass(frozen=True)
class Block:
    """Some neighbouring queries, the keys that any of them sees, and which sees which."""

    queries: slice
    keys: tuple[slice, ...]
    mask: Float[Tensor, "1 query key"]  # 0 where seen, else -inf


@dataclass(frozen=True)
class Plan:
    """The blocks of a forward pass; its last layer attends only where its output is read."""

    blocks: Sequence[Block]
    last: Sequence[Block]
    last_modules: frozenset[nn.Module]


def plan(
    subtree_end: Int[Tensor, "row seq"],
    nodes: Int[Tensor, " node"],
    *,
    language: LanguageModel,
    dtype: torch.dtype,
    trimmed: bool = True,
) -> Plan:
    """Cut the attention of a forward pass; unless `trimmed` all layers attend everywhere."""
    blocks = tree_blocks(subtree_end, dtype=dtype)
    read = np.zeros(subtree_end.numel(), dtype=bool)
    read[nodes.numpy()] = True
    last = [block for block in blocks if read[block.queries].any()]
    layer = last_layer(language) if trimmed else None
    return Plan(blocks, last, frozenset(layer.modules() if layer else ()))


def tree_blocks(
    subtree_end: Int[Tensor, "row seq"], *, dtype: torch.dtype, size: int = BLOCK
) -> list[Block]:
    """Cut all rows, one behind the other, into blocks of up to 3 / 2 `size` queries."""
    rows, length = subtree_end.shape
    ends = (subtree_end.numpy() + np.arange(rows)[:, None] * length).ravel()
    index = np.arange(len(ends))
    blocks, begin = [], 0
    for end in _cuts(ends, size):
        seen = np.flatnonzero(ends[:end] > begin)
        queries = index[begin:end, None]
        mask = np.where((seen <= queries) & (queries < ends[seen]), 0, -np.inf)
        runs = np.split(seen, np.flatnonzero(np.diff(seen) > 1) + 1)
        keys = tuple(slice(int(run[0]), int(run[-1]) + 1) for run in runs)
        blocks.append(Block(slice(begin, end), keys, torch.from_numpy(mask[None]).to(dtype)))
        begin = end
    return blocks


def _cuts(ends: Int[np.ndarray, " node"], size: int) -> Iterator[int]:
    """Yield the ends of blocks: behind the last leaf between half and 3 / 2 of `size`, if any."""
    leaf_ends = np.flatnonzero(ends == np.arange(1, len(ends) + 1)) + 1
    begin = 0
    while begin < len(ends):
        near = leaf_ends[(leaf_ends > begin + size // 2) & (leaf_ends <= begin + size * 3 // 2)]
        begin = int(near[-1]) if len(near) else min(begin + size, len(ends))
        yield begin


class BlockAttention(torch.autograd.Function):
    """softmax(query key^T + mask) value, block by block; gradients as derived by hand."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "head seq dim"],
        key: Float[Tensor, "head seq dim"],
        value: Float[Tensor, "head seq value_dim"],
        blocks: Sequence[Block],
    ) -> Float[Tensor, "head seq value_dim"]:
        output, weights = value.new_zeros(value.shape), []
        with full_precision():
            for block in blocks:
                keys = _take(key, block.keys).transpose(1, 2)
                scores = torch.baddbmm(block.mask.to(query), query[:, block.queries], keys)
                weights.append(scores.softmax(dim=-1))
                output[:, block.queries] = torch.bmm(weights[-1], _take(value, block.keys))
        ctx.blocks = blocks
        ctx.save_for_backward(query, key, value, *weights)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "head seq dim"]) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, *weights = ctx.saved_tensors
        of_query, of_key, of_value = (torch.zeros_like(t) for t in (query, key, value))
        # Lightning goes backward within a training step, where autocast is on
        with full_precision(), torch.autocast(gradient.device.type, enabled=False):
            for block, weight in zip(ctx.blocks, weights, strict=True):
                queries, keys = block.queries, block.keys
                outer = gradient[:, queries]
                _add(of_value, keys, torch.bmm(weight.transpose(1, 2), outer))
                of_weight = torch.bmm(outer, _take(value, keys).transpose(1, 2))
                scores = torch._softmax_backward_data(of_weight, weight, -1, weight.dtype)
                of_query[:, queries] = torch.bmm(scores, _take(key, keys))
                _add(of_key, keys, torch.bmm(scores.transpose(1, 2), query[:, queries]))
        return of_query, of_key, of_value, None


def _take(
    tensor: Float[Tensor, "head seq dim"], runs: Sequence[slice]
) -> Float[Tensor, "head key dim"]:
    parts = [tensor[:, run] for run in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _add(
    total: Float[Tensor, "head seq dim"], runs: Sequence[slice], part: Float[Tensor, "head key dim"]
) -> None:
    begin = 0
    for run in runs:
        end = begin + run.stop - run.start
        total[:, run] += part[:, begin:end]
        begin = end


@contextlib.contextmanager
def attending_in_blocks(language: LanguageModel, plan: Plan) -> Iterator[None]:
    """Let the LM attend by `plan`, whatever attention it was built with."""
    _plans.append(plan)
    try:
        with attending_as(language, NAME):
            yield
    finally:
        _plans.pop()


def refuse_others(options: Mapping[str, Tensor | float | bool | None]) -> None:
    """Raise NotImplementedError where a layer asks for more than a softmax of masked scores."""
    for name, value in options.items():
        if isinstance(value, Tensor) or value:
            raise NotImplementedError(f"attention with {name}")


def _attend(
    module: nn.Module,
    query: Float[Tensor, "row head seq dim"],
    key: Float[Tensor, "row kv_head seq dim"],
    value: Float[Tensor, "row kv_head seq value_dim"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    position_ids: Tensor | None = None,
    **options: Tensor | float | bool | None,
) -> tuple[Float[Tensor, "row seq head value_dim"], None]:
    """What transformers calls in place of its own attention; the mask is that of the blocks.

    Half precision, of the weights or by autocast, is left for float32 and taken up again.
    """
    refuse_others(options)
    exact = torch.promote_types(value.dtype, torch.float32)
    half = value.dtype
    query, key, value = (tensor.to(exact) for tensor in (query, key, value))
    rows, heads, length, dim = query.shape
    scaled = query * (dim**-0.5 if scaling is None else scaling)
    if (repeats := heads // key.shape[1]) > 1:
        key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
    flat = (tensor.transpose(0, 1).flatten(1, 2) for tensor in (scaled, key, value))
    now = _plans[-1]
    with torch.autocast(query.device.type, enabled=False):
        output = BlockAttention.apply(*flat, now.last if module in now.last_modules else now.blocks)
    by_token = output.view(heads, rows, length, -1).permute(1, 2, 0, 3)
    return by_token.to(half).contiguous(), None


AttentionInterface.register(NAME, _attend)
