"""Attention on token trees on a GPU: flash-attn where no prefix is shared, else FlexAttention.

Like block_attention.py on a CPU both leave out what a mask would hide. flash-attn is used where it
is installed and the weights, or autocast, are in half precision, the only one that it knows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface
from transformers.integrations.flex_attention import flex_attention_forward

from dress.modeling.block_attention import refuse_others
from dress.modeling.language import Attention, LanguageModel, attending_as

TREES, CHAINS = "dress_flex_trees", "dress_flash_chains"
BLOCK = 128  # tokens, as FlexAttention's kernels have it
HALF = (torch.float16, torch.bfloat16)
_bounds: list[Int[Tensor, " bound"]] = []  # of the forward passes that are running


def kernel_attention(
    language: LanguageModel,
    subtree_end: Int[Tensor, "row seq"],
    chain_bounds: Int[Tensor, " bound"],
    *,
    dtype: torch.dtype,
) -> Attention:
    """Return how the LM attends by the kernel that fits.

    `chain_bounds` as in TokenBatch, `dtype` that of the embeddings.
    """
    if not takes_chains(chain_bounds, dtype=dtype):
        mask = tree_block_mask(subtree_end)
        return Attention(mask, partial(attending_as, language, TREES))
    unread = torch.zeros(1, 1, 1, 1, dtype=dtype, device=subtree_end.device)
    return Attention(unread, partial(attending_on_chains, language, chain_bounds.int()))


@contextlib.contextmanager
def attending_on_chains(language: LanguageModel, bounds: Int[Tensor, " bound"]) -> Iterator[None]:
    _bounds.append(bounds)
    try:
        with attending_as(language, CHAINS):
            yield
    finally:
        _bounds.pop()


def takes_chains(chain_bounds: Int[Tensor, " bound"], *, dtype: torch.dtype) -> bool:
    """Whether flash-attn can run a batch, whose embeddings have `dtype`."""
    device = chain_bounds.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return len(chain_bounds) > 0 and dtype in HALF and find_spec("flash_attn") is not None


def tree_mask_mod(subtree_end: Int[Tensor, "row seq"]) -> Callable[..., Tensor]:
    """Tell FlexAttention that token i sees token j iff j <= i < subtree_end[j]."""

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < subtree_end[row, key])

    return sees


def tree_block_mask(subtree_end: Int[Tensor, "row seq"]) -> BlockMask:
    """Find the blocks that hold anything to see, without writing the mask itself out.

    Subtrees are nested, so a block of keys is seen from a later block of queries iff the subtree of
    one of its tokens reaches there, and wholly iff all of them reach behind it. No host sync.
    """
    rows, length = subtree_end.shape
    count = -(-length // BLOCK)
    blocks = F.pad(subtree_end, (0, count * BLOCK - length)).view(rows, 1, count, BLOCK)
    index = torch.arange(count, device=subtree_end.device)
    queries, keys = index[:, None], index[None]
    seen = (keys < queries) & (blocks.amax(-1) > queries * BLOCK) | (keys == queries)
    whole = (keys < queries) & (blocks.amin(-1) >= (queries + 1) * BLOCK)
    return BlockMask.from_kv_blocks(
        *_listed(seen & ~whole),
        *_listed(whole),
        BLOCK_SIZE=BLOCK,
        mask_mod=tree_mask_mod(subtree_end),
        seq_lengths=(length, length),
    )


def _listed(
    blocks: Tensor,
) -> tuple[Int[Tensor, "row 1 block"], Int[Tensor, "row 1 block block"]]:
    """Count the key blocks of each query block and put their numbers first."""
    found = blocks[:, None].int()
    order = found.argsort(dim=-1, descending=True, stable=True)
    return found.sum(-1, dtype=torch.int32), order.int()


@cache
def varlen_kernel() -> Callable[..., Tensor]:
    from flash_attn import flash_attn_varlen_func

    return flash_attn_varlen_func


def _attend_on_chains(
    module: nn.Module,
    query: Float[Tensor, "row head seq dim"],
    key: Float[Tensor, "row kv_head seq dim"],
    value: Float[Tensor, "row kv_head seq dim"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    position_ids: Tensor | None = None,
    **options: Tensor | float | bool | None,
) -> tuple[Float[Tensor, "row seq head dim"], None]:
    """What transformers calls in place of its own attention: all rows are one after the other."""
    refuse_others(options)
    rows, _, length, _ = query.shape
    flat = (t.transpose(1, 2).flatten(0, 1).to(value.dtype) for t in (query, key, value))
    output = varlen_kernel()(
        *flat,
        cu_seqlens_q=_bounds[-1],
        cu_seqlens_k=_bounds[-1],
        max_seqlen_q=length,  # of a row, so that no length has to be read back from the device
        max_seqlen_k=length,
        softmax_scale=scaling,
        causal=True,
    )
    return output.unflatten(0, (rows, length)), None


def _attend_on_trees(
    module: nn.Module,
    query: Float[Tensor, "row head seq dim"],
    key: Float[Tensor, "row kv_head seq dim"],
    value: Float[Tensor, "row kv_head seq dim"],
    attention_mask: BlockMask,
    **options: Tensor | float | bool | None,
) -> tuple[Float[Tensor, "row seq head dim"], Tensor | None]:
    """Under autocast rotary embeddings leave queries and keys in float32, which flex refuses."""
    query, key = query.to(value.dtype), key.to(value.dtype)
    return flex_attention_forward(module, query, key, value, attention_mask, **options)  # type: ignore[arg-type]


AttentionInterface.register(TREES, _attend_on_trees)
AttentionInterface.register(CHAINS, _attend_on_chains)
