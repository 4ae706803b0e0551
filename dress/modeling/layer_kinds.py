"""Layers whose tokens meet otherwise than by attention to all before them: they share no prefix.

A state, a convolution or a window counts tokens as they lie in a row, where the branches of a tree
lie one behind the other. A comparison of logits misses what random weights hardly use, or what acts
only on sequences longer than those compared, so that these kinds are known by type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from dress.modeling.language import LanguageModel, text_config
from dress.modeling.last_layer import layers_of

# keys of configurations that list the kind of each layer, and the kinds that share prefixes
LISTS = ("layer_types", "layers_block_type", "block_types", "attention_layers", "attn_layers")
SHARING = {"full_attention", "attention", "global", "mlp", "moe", "dense", "sparse"}
# keys whose number is how far, or to how many tokens, a layer attends
REACH = re.compile(r"window|attention_chunk_size|local_attention|index_topk")
NO_REACH = {"use_sliding_window", "max_window_layers"}
# what modules that mix tokens without attention are called
MIXERS = re.compile(
    r"mamba|rwkv|[xms]lstm|rglru|recurrent|deltanet|delta_?attention|linear_?attention|lightning"
    r"|short_?conv|lsh|local_?self_?attention|indexer",
    re.IGNORECASE,
)


def unshared_kind(language: LanguageModel) -> str:
    """Say what keeps the LM from sharing prefixes, or nothing."""
    config = text_config(language).to_dict()
    found = next(_kinds(config), None) or next(_reaches(config), None)
    return found or next(_mixers(language), "")


def _kinds(config: Mapping[str, Any]) -> Iterator[str]:
    for key in LISTS:
        for kind in sorted(set(config.get(key) or ()) - SHARING):
            yield f"it has {kind} layers"


def _reaches(config: Mapping[str, Any]) -> Iterator[str]:
    # where the kind of each layer is listed, a window belongs to the layers that are listed with it
    if config.get("use_sliding_window") is False or config.get("layer_types"):
        config = {key: value for key, value in config.items() if "window" not in key}
    for key, value in config.items():
        if REACH.search(key) and key not in NO_REACH and value:
            yield f"{key}={value}"


def _mixers(language: LanguageModel) -> Iterator[str]:
    layers = layers_of(language)
    for module in (language if layers is None else layers).modules():
        name = type(module).__name__
        convolves = isinstance(module, nn.Conv1d) and module.kernel_size != (1,)
        if convolves or isinstance(module, nn.RNNBase) or MIXERS.search(name):
            yield f"it has {name} layers"
