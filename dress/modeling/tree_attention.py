"""How a language model runs on token trees, or on padded rows, and whether a given one can."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dress.modeling.alone import (
    Alone,
    error_line,
    padded_rows,
    sequences_alone,
    tree_rows,
    undisturbed,
)
from dress.modeling.block_attention import attending_in_blocks, plan
from dress.modeling.gpu_attention import kernel_attention
from dress.modeling.head import gathered_head, logits_of
from dress.modeling.language import Attention, LanguageModel, text_config, token_embedding
from dress.modeling.layers import keeping_inputs, only_at, unshared_kind

AttentionOf = Callable[..., Attention]  # the arguments are those of `attention_on_trees`

# of configurations, nested ones too: what attention does beside a softmax of masked scores
DROPS = re.compile(r"att(entio)?n.*drop|^dropout_att")
CAPS = re.compile(r"att(entio)?n.*soft_?cap")


@dataclass(frozen=True)
class Ways:
    """What a language model permits; self_check.py finds it out when the model is built.

    `trees`: rows may be token trees; else each must be one sequence with its padding behind it.
    `trimmed`: the last layer may compute only what is read. `headless`: the head may be left out,
    and run by itself on some of the states.
    """

    trees: bool = True
    trimmed: bool = True
    headless: bool = True


def run_language(
    language: LanguageModel,
    embeds: Float[Tensor, "row seq dim"],
    nodes: Int[Tensor, " node"],
    *,
    subtree_end: Int[Tensor, "row seq"],
    position_ids: Int[Tensor, "row seq"],
    ways: Ways,
    chain_bounds: Int[Tensor, " bound"] | None = None,
    head: bool = True,
    checkpointing: bool = False,
    attend: AttentionOf | None = None,
) -> tuple[Float[Tensor, "node vocab"], Float[Tensor, "node dim"]]:
    """Return the logits and the last states at `nodes` (flat row * seq indices) of one pass.

    The rest as in TokenBatch. Without `head` there are no logits; without `chain_bounds` no kernel
    of gpu_attention.py is used. With `checkpointing` layers keep their input alone. `attend` takes
    the place of `attention_on_trees`.
    """
    inputs: dict[str, Any] = {}
    attending: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    if ways.trees:
        attention = (attend or attention_on_trees)(
            subtree_end,
            nodes,
            language=language,
            dtype=embeds.dtype,
            chain_bounds=chain_bounds,
            trimmed=ways.trimmed,
        )
        inputs = {"position_ids": position_ids, "attention_mask": attention.mask}
        attending = attention.context
    else:  # padding is behind all that is read, where no token sees it
        check_one_sequence_each(subtree_end)
    with contextlib.ExitStack() as stack:
        stack.enter_context(attending())
        if checkpointing and torch.is_grad_enabled():
            stack.enter_context(keeping_inputs(language, again=attending))
        if ways.trimmed:
            stack.enter_context(only_at(language, nodes))
        states = stack.enter_context(gathered_head(language, nodes, runs=head))
        output = language(inputs_embeds=embeds, use_cache=False, **inputs)
    return output.logits.squeeze(0), states[0].squeeze(0)


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


def attention_on_trees(
    subtree_end: Int[Tensor, "row seq"],
    nodes: Int[Tensor, " node"],
    *,
    language: LanguageModel,
    dtype: torch.dtype,
    chain_bounds: Int[Tensor, " bound"] | None = None,
    trimmed: bool = True,
) -> Attention:
    """Return how one forward pass attends that is read at `nodes` (flat indices).

    Unless `trimmed`, the last layer attends elsewhere too.

    Block by block on a CPU, by gpu_attention.py on a GPU if there are `chain_bounds` (TokenBatch),
    else dense.
    """
    if attends_in_blocks(language, subtree_end.device):
        found = plan(subtree_end, nodes, language=language, dtype=dtype, trimmed=trimmed)
        unread = torch.zeros(1, 1, 1, 1, dtype=dtype)  # of four axes, so that no other is made
        return Attention(unread, partial(attending_in_blocks, language, found))
    if chain_bounds is not None and attends_by_kernel(language, subtree_end.device, dtype):
        return kernel_attention(language, subtree_end, chain_bounds, dtype=dtype)
    mask = tree_attention(subtree_end, language=language, dtype=dtype)
    return Attention(mask, contextlib.nullcontext)


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


def tree_supported(language: LanguageModel) -> tuple[bool, str]:
    """Say whether rows may be token trees, and why not.

    Known by the kinds of its layers first; then a prefix with two branches must have the logits of
    both sequences alone. InputError where these cannot be computed.
    """
    if kind := unshared_kind(language):
        return False, kind
    if token_embedding(language).weight.is_meta:
        return True, "not compared: the weights are on the meta device"
    with undisturbed(language):
        reason = failure(language, sequences_alone(language), Ways(trimmed=False))
    return not reason, reason


def failure(language: LanguageModel, alone: Alone, ways: Ways, *, head: bool = True) -> str:
    """Say how a way of running the model fails to give the logits of sequences alone, if it does.

    A last pass, in training mode and with embeddings that are no token's, as those of images are,
    shows what raises an error there only. Call it inside `undisturbed`.
    """
    rows = tree_rows(alone.ids) if ways.trees else padded_rows(alone.ids)
    embeds = token_embedding(language)(rows.ids)
    of_image = torch.cat([embeds[:, :1], embeds[:, 1:5].flip(-1), embeds[:, 5:]], dim=1)

    def logits(embeds: Float[Tensor, "row seq dim"]) -> Float[Tensor, "read vocab"]:
        found, states = run_language(
            language,
            embeds,
            rows.nodes,
            subtree_end=rows.subtree_end,
            position_ids=rows.position_ids,
            ways=ways,
            head=head,
        )
        return found if head else logits_of(language, states)

    try:
        found = logits(embeds)
        language.train()
        logits(of_image)
    except Exception as raised:
        return error_line(raised)
    finally:
        language.eval()
    return alone.differ(found)
