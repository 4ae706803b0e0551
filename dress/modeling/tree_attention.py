"""How a language model attends on token trees, and whether a given one can."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from dress.modeling.block_attention import attending_in_blocks, plan
from dress.modeling.gpu_attention import attending_by_kernel
from dress.modeling.language import LanguageModel, token_embedding
from dress.modeling.precision import full_precision

# Largest tree-against-plain difference of a logit, relative to the largest logit.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
TOLERANCE_HALF = 5e-2
DROPOUT_KEYS = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")


def tree_mask(subtree_end: Int[Tensor, "row seq"]) -> Bool[Tensor, "row 1 seq seq"]:
    """Let token i see token j iff j <= i < subtree_end[j]."""
    index = torch.arange(subtree_end.shape[1], device=subtree_end.device)
    causal = index[None, :] <= index[:, None]
    return (causal & (index[None, :, None] < subtree_end[:, None, :]))[:, None]


def sequence_mask(subtree_end: Int[Tensor, "row seq"]) -> Bool[Tensor, "row seq"]:
    """Tell the tokens of rows that hold one sequence each from the padding behind them."""
    index = torch.arange(subtree_end.shape[1], device=subtree_end.device)
    end = subtree_end[:, :1]
    expected = torch.where(index < end, end, index + 1)
    assert torch.equal(expected, subtree_end), "this language model takes one sequence per row"
    return index < end


@contextlib.contextmanager
def attending_on_trees(
    subtree_end: Int[Tensor, "row seq"],
    nodes: Int[Tensor, " node"],
    *,
    language: LanguageModel,
    dtype: torch.dtype,
    chain_bounds: Int[Tensor, " bound"] | None = None,
) -> Iterator[Tensor | BlockMask]:
    """Yield the attention mask for one forward pass that is read at `nodes` (flat indices).

    Block by block on a CPU, by gpu_attention.py on a GPU if there are `chain_bounds` (TokenBatch),
    else dense.
    """
    if attends_in_blocks(language, subtree_end.device):
        found = plan(subtree_end, nodes, language=language, dtype=dtype)
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
    config = language.config.to_dict()
    drops = any(config.get(key) for key in DROPOUT_KEYS)
    return not drops and not config.get("attn_logit_softcapping")


def tree_attention(
    subtree_end: Int[Tensor, "row seq"], *, language: LanguageModel, dtype: torch.dtype
) -> Bool[Tensor, "row 1 seq seq"] | Float[Tensor, "row 1 seq seq"]:
    """Give the mask in the form that the LM's attention takes: boolean, or added to the scores."""
    mask = tree_mask(subtree_end)
    if language.config._attn_implementation == "sdpa":
        return mask
    blocked = torch.finfo(dtype).min
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, blocked)


def tree_supported(language: LanguageModel) -> tuple[bool, str]:
    """Compare the logits of a prefix with two branches with those of both sequences alone.

    A window would show only in sequences longer than itself, so it is read from the configuration.
    Products are at full precision here, so that the verdict is about the model, not the host.
    """
    if reason := _window(language.config.to_dict()):
        return False, reason
    if language.config._attn_implementation not in ("eager", "sdpa"):
        return False, f"attention {language.config._attn_implementation} takes no mask"
    weight = token_embedding(language).weight
    if weight.is_meta:
        return True, "not compared: the weights are on the meta device"
    was_training = language.training
    language.eval()
    try:
        error = _tree_error(language)
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False, "it accepts no 4-D mask with position ids"
    finally:
        language.train(was_training)
    allowed = TOLERANCE.get(weight.dtype, TOLERANCE_HALF)
    verdict = f"tree and plain logits differ by {error:.1e} of the largest, allowed {allowed:.0e}"
    return error <= allowed, verdict


def _window(config: Mapping[str, Any]) -> str:
    """Name what limits the reach of some layer's attention, if anything does."""
    if layer_types := config.get("layer_types"):
        other = sorted(set(layer_types) - {"full_attention"})
        return f"it has {other[0]} layers" if other else ""
    if config.get("use_sliding_window") is False:
        return ""
    windows = [key for key, value in config.items() if "window" in key and value]
    return f"{windows[0]}={config[windows[0]]}" if windows else ""


@full_precision()
@torch.no_grad()
def _tree_error(language: LanguageModel, prefix: int = 9, branch: int = 7) -> float:
    embedding = token_embedding(language)
    device = embedding.weight.device
    fork, end = prefix + branch, prefix + 2 * branch
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(embedding.num_embeddings, (1, end), generator=generator).to(device)
    index = torch.arange(end, device=device)
    in_first = (index >= prefix) & (index < fork)
    embeds = embedding(ids)
    ends = torch.where(in_first, fork, end)[None]
    with attending_on_trees(ends, index, language=language, dtype=embeds.dtype) as mask:
        tree = language(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=(index - branch * (index >= fork))[None],
            use_cache=False,
        ).logits[0]
    both = torch.cat([ids[:, :fork], torch.cat([ids[:, :prefix], ids[:, fork:]], dim=1)])
    plain = language(input_ids=both, use_cache=False).logits
    expected = torch.cat([plain[0], plain[1, prefix:]])
    return ((tree - expected).abs().max() / expected.abs().max()).item()
