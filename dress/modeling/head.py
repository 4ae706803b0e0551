"""The LM's own head where it is read; with a large vocabulary in pieces of bounded memory.

A step reads thousands of tokens, and logits over 32,000 words of 4,000 tokens are 0.5 GB, several
times in a backward pass. Pieces are computed one by one, and again in the backward pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutputWithPast

from dress.modeling.language import LanguageModel, decoder_of

LOGITS = 2**24  # at a time; 64 MiB in float32

# logits, the row of each target in them, its token: a figure of each target
Read = Callable[
    [Float[Tensor, "node vocab"], Int[Tensor, " target"], Int[Tensor, " target"]],
    Tensor,
]


class _Decoded(BaseModelOutputWithPast):
    """What an LM takes for the output of its decoder; whatever else it looks for is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def output_head(language: LanguageModel) -> nn.Linear:
    return cast(nn.Linear, language.get_output_embeddings())


@contextlib.contextmanager
def gathered_head(
    language: LanguageModel, nodes: Int[Tensor, " node"], *, runs: bool = True
) -> Iterator[list[Tensor]]:
    """Let the LM head see only `nodes` (flat row * seq indices), as one row of states, or nothing.

    The list that is yielded receives these states.
    """
    states: list[Tensor] = []

    def gather(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states.append(inputs[0].flatten(0, 1)[nodes][None])
        return (states[-1] if runs else states[-1][:, :0], *inputs[1:])

    handle = output_head(language).register_forward_pre_hook(gather)
    try:
        yield states
    finally:
        handle.remove()


def fits(language: LanguageModel, nodes: Int[Tensor, " node"]) -> bool:
    """Whether the logits at all nodes may be held at once."""
    return len(nodes) * len(output_head(language).weight) <= LOGITS


def read_in_pieces(
    language: LanguageModel,
    states: Float[Tensor, "node dim"],
    *,
    target_logit: Int[Tensor, " target"],
    target_ids: Int[Tensor, " target"] | Int[Tensor, "target kept"],
    reads: tuple[Read, ...],
) -> tuple[Tensor, ...]:
    """Give what each of `reads` says of all targets, whose logits come from `states`.

    A piece is some targets, so that the few states which several of them follow are met again.
    """

    def piece(
        states: Float[Tensor, "node dim"],
        rows: Int[Tensor, " target"],
        ids: Int[Tensor, " target"] | Int[Tensor, "target kept"],
    ) -> tuple[Tensor, ...]:
        logits = logits_of(language, states[rows])
        places = torch.arange(len(ids), device=ids.device)
        return tuple(read(logits, places, ids) for read in reads)

    size = max(LOGITS // len(output_head(language).weight), 1)
    found = []
    for rows, ids in zip(target_logit.split(size), target_ids.split(size), strict=True):
        run: Any = piece
        if torch.is_grad_enabled():
            found.append(checkpoint(run, states, rows, ids, use_reentrant=False))
        else:
            found.append(piece(states, rows, ids))
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def logits_of(
    language: LanguageModel, states: Float[Tensor, "node dim"]
) -> Float[Tensor, "node vocab"]:
    """Run the head, and what the LM does to its logits, on states that the head would see."""
    own: Any = language.get_base_model() if isinstance(language, PeftModel) else language
    decoder, given = decoder_of(language), states[None]
    handle = output_head(language).register_forward_pre_hook(lambda _, inputs: (given,))
    decoder.forward = lambda *_, **__: _Decoded(last_hidden_state=given)
    try:
        return own(inputs_embeds=given, use_cache=False).logits[0]
    finally:
        del decoder.forward
        handle.remove()
