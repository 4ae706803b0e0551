"""One forward pass of the language model over token trees, or over rows that are padded."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from dress.modeling.head import gathered_head
from dress.modeling.language import LanguageModel
from dress.modeling.last_layer import only_at
from dress.modeling.tree_attention import attending_on_trees, check_one_sequence_each


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


@dataclass(frozen=True)
class Layout:
    """How tokens lie in rows; fields as in TokenBatch."""

    subtree_end: Int[Tensor, "row seq"]
    position_ids: Int[Tensor, "row seq"]
    chain_bounds: Int[Tensor, " bound"] | None = None  # none: no kernel of gpu_attention.py


def run_language(
    language: LanguageModel,
    embeds: Float[Tensor, "row seq dim"],
    layout: Layout,
    nodes: Int[Tensor, " node"],
    *,
    ways: Ways,
    head: bool = True,
) -> tuple[Float[Tensor, "node vocab"], Float[Tensor, "node dim"]]:
    """Return the logits and the last states at `nodes` (flat row * seq indices).

    Without `head` there are no logits.
    """
    assert head or ways.headless, "this language model runs its head"
    with contextlib.ExitStack() as stack:
        inputs: dict[str, Any] = {}
        if ways.trees:
            inputs["position_ids"] = layout.position_ids
            inputs["attention_mask"] = stack.enter_context(
                attending_on_trees(
                    layout.subtree_end,
                    nodes,
                    language=language,
                    dtype=embeds.dtype,
                    chain_bounds=layout.chain_bounds,
                    trimmed=ways.trimmed,
                )
            )
        else:  # padding is behind all that is read, where no token sees it
            check_one_sequence_each(layout.subtree_end)
        if ways.trimmed:
            stack.enter_context(only_at(language, nodes))
        states = stack.enter_context(gathered_head(language, nodes, runs=head))
        output = language(inputs_embeds=embeds, use_cache=False, **inputs)
    return output.logits.squeeze(0), states[0].squeeze(0)
