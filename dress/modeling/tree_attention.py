"""How a language model attends on token trees."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from dress.modeling.block_attention import attending_in_blocks, plan
from dress.modeling.gpu_attention import attending_by_kernel
from dress.modeling.language import LanguageModel, text_config

# of configurations, nested ones too: what attention does beside a softmax of masked scores
DROPS = re.compile(r"att(entio)?n.*drop|^dropout_att")
CAPS = re.compile(r"att(entio)?n.*soft_?cap")


def tree_mask(subtree_end: Int[Tensor, "row seq"]) -> Bool[Tensor, "row 1 seq seq"]:
    """Let token i see token j iff j <= i < subtree_end[j]."""
    index = torch.arange(subtree_end.shape[1], device=subtree_end.device)
    causal = index[None, :] <= index[:, None]
    return (causal & (index[None, :, None] < subtree_end[:, None, :]))[:, None]


def check_one_sequence_each(subtree_end: Int[Tensor, "row seq"]) -> None:
    """Assert that each row holds one sequence and behind it at most padding."""
    index = torch.arange(subtree_end.shape[1], device=subtree_end.device)
    end = subtree_end[:, :1]
    expected = torch.where(index < end, end, index + 1)
    assert torch.equal(expected, subtree_end), "this language model takes one sequence per row"


@contextlib.contextmanager
def attending_on_trees(
    subtree_end: Int[Tensor, "row seq"],
    nodes: Int[Tensor, " node"],
    *,
    language: LanguageModel,
    dtype: torch.dtype,
    chain_bounds: Int[Tensor, " bound"] | None = None,
    trimmed: bool = True,
) -> Iterator[Tensor | BlockMask]:
    """Yield the attention mask for one forward pass that is read at `nodes` (flat indices).

    Unless `trimmed`, the last layer attends elsewhere too.

    Block by block on a CPU, by gpu_attention.py on a GPU if there are `chain_bounds` (TokenBatch),
    else dense.
    """
    if attends_in_blocks(language, subtree_end.device):
        found = plan(subtree_end, nodes, language=language, dtype=dtype, trimmed=trimmed)
        with attending_in_blocks(language, found):
            yield torch.zeros(1, 1, 1, 1, dtype=dtype)  # of four axes, so that no other is made
    elif chain_bounds is not None and attends_by_kernel(language, subtree_end.device, dtype):
        with attending_by_kernel(language, subtree_end, chain_bounds, dtype=dtype) as mask:
            yield mask
    else:
        yield tree_attention(subtree_end, language=language, dtype=dtype)


def attends_in_blocks(language: LanguageModel, device: torch.device) -> bool:
    """Whether block_attention.py is used."""
    return device.type == "cpu" and attends_plainly(language)


def attends_by_kernel(language: LanguageModel, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether gpu_attention.py can be used; its kernels know no float64."""
    return device.type == "cuda" and dtype != torch.float64 and attends_plainly(language)


def attends_plainly(language: LanguageModel) -> bool:
    """Whether attention has neither dropout nor soft-capped scores."""
    return not any(
        value and (DROPS.search(str(key)) or CAPS.search(str(key)))
        for key, value in _entries(text_config(language).to_dict())
    )


def _entries(config: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _entries(value)
        else:
            yield key, value


def tree_attention(
    subtree_end: Int[Tensor, "row seq"], *, language: LanguageModel, dtype: torch.dtype
) -> Bool[Tensor, "row 1 seq seq"] | Float[Tensor, "row 1 seq seq"]:
    """Give the mask in the form that the LM's attention takes: boolean, or added to the scores."""
    mask = tree_mask(subtree_end)
    if text_config(language)._attn_implementation == "sdpa":
        return mask
    blocked = torch.finfo(dtype).min
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, blocked)
