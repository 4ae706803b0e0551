"""The LM's layers: which kinds share prefixes, the last run at chosen tokens, the others twice."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import attrgetter
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dress.modeling.language import LanguageModel, decoder_of, text_config

TOKENWISE = ("self_attn.q_proj", "self_attn.o_proj", "mlp")  # where a layer has them
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


@contextlib.contextmanager
def only_at(language: LanguageModel, nodes: Int[Tensor, " node"]) -> Iterator[None]:
    """Run the last layer's query, output and MLP at `nodes` (flat row * seq indices) alone.

    Each maps every token by itself. Elsewhere their output is zero, so that what follows is wrong
    there; nothing reads it. Of four layers this spares up to a sixth of the work.
    """
    handles = []
    for part in tokenwise_parts(language):
        run = _AtNodes(nodes)
        handles.append(part.register_forward_pre_hook(run.gather))
        handles.append(part.register_forward_hook(run.scatter))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def keeping_inputs(
    language: LanguageModel, *, again: Callable[[], contextlib.AbstractContextManager[None]]
) -> Iterator[None]:
    """Let each layer keep its input alone and run once more, within `again`, in the backward pass.

    Activation checkpointing (Chen et al. 2016, arXiv 1604.06174). The last layer keeps everything:
    it would be the first to run again, when nothing of the others is there yet. transformers has
    the same for its models, but not for a layer whose attention depends on where it runs, nor for a
    frozen one, through which the projector's gradient goes.
    """
    layers = list(layers_of(language) or ())[:-1]
    for layer in layers:
        layer.forward = partial(
            checkpoint,
            layer.forward,
            use_reentrant=False,
            context_fn=lambda: (contextlib.nullcontext(), again()),
        )
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def tokenwise_parts(language: LanguageModel) -> list[nn.Module]:
    """Return the parts of the last layer by the names that Llama and its kin give them.

    Whether each really maps every token by itself is tried at build (self_check.py).
    """
    layer, parts = last_layer(language), []
    for name in TOKENWISE:
        with contextlib.suppress(AttributeError):
            parts.append(attrgetter(name)(layer))
    return parts


def last_layer(language: LanguageModel) -> nn.Module | None:
    """Return the last of the LM's layers, or None where `layers_of` finds none."""
    layers = layers_of(language)
    return layers[-1] if layers is not None else None


def layers_of(language: LanguageModel) -> nn.ModuleList | None:
    """Return the LM's layers, or None where they cannot be told from other modules."""
    number, modules = text_config(language).num_hidden_layers, decoder_of(language).modules()
    stacks = [m for m in modules if isinstance(m, nn.ModuleList) and len(m) == number]
    return stacks[0] if len(stacks) == 1 else None


class _AtNodes:
    """The two hooks of one part: rows in, rows out. Duplicate nodes share their output equally."""

    def __init__(self, nodes: Int[Tensor, " node"]) -> None:
        self.nodes, self.rows, self.length = nodes, 0, 0

    def gather(
        self, _: nn.Module, inputs: tuple[Float[Tensor, "row seq dim"]]
    ) -> tuple[Float[Tensor, "1 node dim"]]:
        self.rows, self.length, _dim = inputs[0].shape
        return (inputs[0].flatten(0, 1).index_select(0, self.nodes)[None],)

    def scatter(
        self, _: nn.Module, inputs: object, output: Float[Tensor, "1 node out"]
    ) -> Float[Tensor, "row seq out"]:
        size = self.rows * self.length
        times = output.new_zeros(size).index_add(0, self.nodes, output.new_ones(len(self.nodes)))
        share = output[0] / times[self.nodes, None]
        everywhere = output.new_zeros(size, output.shape[-1]).index_add(0, self.nodes, share)
        return everywhere.view(self.rows, self.length, -1)


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
