"""What a deep model takes, from passes through a few of its layers.

Layers of one shape take equally much, so that bytes and FLOPs lie on a straight line over their
number. A pass through fake tensors takes time for each operation, and a large model has many.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from torch import nn

from dress.modeling.footprint import Pass
from dress.modeling.language import LanguageModel, text_config
from dress.modeling.layers import layers_of
from dress.modeling.lvlm import LVLM

FEW = (2, 3, 4)  # layers; of two alone nothing would tell that the line is straight
BEND = 0.001  # by how much of a layer's bytes or FLOPs the two steps may differ


def deep_pass(models: Sequence[LVLM], passing: Callable[[], Pass]) -> Pass:
    """Return what `passing` gives through all layers of `models`.

    Where they have many layers that are alike it goes through 2, 3 and 4 of them; where these do
    not lie on a straight line, as those that run again may not, through all.
    """
    depth = len(layers_of(models[0].language) or ())
    few = depth <= 2 * FEW[-1] or any(model.checkpointing for model in models)
    if few or not all(_alike(model.language) for model in models):
        return passing()
    found = []
    for number in FEW:
        with contextlib.ExitStack() as stack:
            for model in models:
                stack.enter_context(_of_depth(model.language, number))
            found.append(vars(passing()))
    line = {name: [figures[name] for figures in found] for name in found[0]}
    if any(abs((c - b) - (b - a)) > BEND * (c - b) for a, b, c in line.values()):
        return passing()
    beyond = depth - FEW[-1]
    return Pass(**{name: c + beyond * (c - b) for name, (_, b, c) in line.items()})


def _alike(language: LanguageModel) -> bool:
    """Whether all layers have weights of the same shapes and types, which train or not alike."""
    kinds = {
        (
            type(layer),
            *((n, p.shape, p.dtype, p.requires_grad) for n, p in layer.named_parameters()),
        )
        for layer in layers_of(language) or ()
    }
    return len(kinds) == 1


@contextlib.contextmanager
def _of_depth(language: LanguageModel, number: int) -> Iterator[None]:
    """Leave the first layers alone in the LM."""
    layers, config = layers_of(language), text_config(language)
    assert isinstance(layers, nn.ModuleList)
    whole, depth = dict(layers._modules), config.num_hidden_layers
    for name in list(whole)[number:]:
        del layers._modules[name]
    config.num_hidden_layers = number
    try:
        yield
    finally:
        layers._modules.update(whole)
        config.num_hidden_layers = depth
