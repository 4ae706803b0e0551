"""Pure tensor functions that objectives share: where a prediction meets its token."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def target_log_probs(
    logits: Float[Tensor, "node vocab"],
    target_logit: Int[Tensor, " target"],
    target_ids: Int[Tensor, " target"],
) -> Float[Tensor, " target"]:
    """Log-probability of each supervised token, from the logits of its predecessor in the tree.

    Computed in float32 at least. `target_logit` indexes the rows of `logits`: tokens that follow
    one prefix share a row.
    """
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    normaliser = logits.logsumexp(dim=-1)
    return logits[target_logit, target_ids] - normaliser[target_logit]


def sequence_sums(
    values: Float[Tensor, " target"], target_seq: Int[Tensor, " target"], num_sequences: int
) -> Float[Tensor, " sequence"]:
    """Sum what belongs to the supervised tokens of each sequence."""
    return values.new_zeros(num_sequences).index_add(0, target_seq, values)


def is_top_token(
    logits: Float[Tensor, "node vocab"],
    target_logit: Int[Tensor, " target"],
    target_ids: Int[Tensor, " target"],
) -> Bool[Tensor, " target"]:
    """Whether greedy decoding would have chosen each supervised token."""
    return logits.argmax(dim=-1)[target_logit] == target_ids


def chosen_log_probs(
    logits: Float[Tensor, "node vocab"],
    target_logit: Int[Tensor, " target"],
    tokens: Int[Tensor, "target kept"],
) -> Float[Tensor, "target kept"]:
    """Log-probabilities of several tokens in the place of each supervised one."""
    return logits.float().log_softmax(dim=-1)[target_logit].gather(1, tokens)


def top_ids(
    logits: Float[Tensor, "node vocab"],
    target_logit: Int[Tensor, " target"],
    target_ids: Int[Tensor, " target"],
    *,
    k: int,
) -> Int[Tensor, "target kept"]:
    """The `k` most likely tokens, or all, in the place of each supervised one."""
    return logits.topk(min(k, logits.shape[-1]), dim=-1).indices[target_logit]


def top_log_probs(
    logits: Float[Tensor, "node vocab"],
    target_logit: Int[Tensor, " target"],
    target_ids: Int[Tensor, " target"],
    *,
    k: int,
) -> Float[Tensor, "target kept"]:
    """The log-probabilities of `top_ids`."""
    log_probs = logits.float().log_softmax(dim=-1)
    return log_probs.topk(min(k, logits.shape[-1]), dim=-1).values[target_logit]


def target_entropies(
    logits: Float[Tensor, "node vocab"],
    target_logit: Int[Tensor, " target"],
    target_ids: Int[Tensor, " target"],
) -> Float[Tensor, " target"]:
    """Entropy, in nats, of the distribution that each supervised token was predicted by."""
    log_probs = logits.float().log_softmax(dim=-1)
    return -(log_probs.exp() * log_probs).sum(dim=-1)[target_logit]
