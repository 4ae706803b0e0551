"""Models of transformers' type llava: CLIP or SigLIP, two layers, any language model."""

from __future__ import annotations

from typing import Any

from transformers import LlavaProcessor

from dress.errors import InputError
from dress.modeling.hub.family import Family, choice
from dress.modeling.hub.towers import ACTIVATIONS, CLIP, SIGLIP, SIZES

ACTS = ("gelu", "linear")  # of the projector
PROCESSORS = ("CLIPImageProcessor", "SiglipImageProcessor", "LlavaImageProcessor")


def _described(config: Any, name: str) -> dict[str, dict[str, Any]]:
    act = choice("projector_hidden_act", config.projector_hidden_act, ACTS, name)
    return {
        "vision": {
            "config": _tower_shape(config, name),
            "image_size": config.vision_config.image_size,
            "layer": _layer(config, name),
            "final_norm": False,  # hidden states there are those before it
        },
        "projector": {
            "hidden_dim": config.text_config.hidden_size,
            "depth": 2,
            "activation": act,
            "bias": config.multimodal_projector_bias,
        },
    }


def _tower_shape(config: Any, name: str) -> dict[str, Any]:
    tower = config.vision_config
    kind = choice("vision_config.model_type", tower.model_type, (CLIP, SIGLIP), name)
    strategy = "default" if kind == CLIP else "full"  # a CLIP tower alone has a class token
    choice(
        "vision_feature_select_strategy", config.vision_feature_select_strategy, (strategy,), name
    )
    act = choice("vision_config.hidden_act", tower.hidden_act, tuple(ACTIVATIONS), name)
    sizes = {size: getattr(tower, size) for size in SIZES}
    return {"model_type": kind, "hidden_act": act, "layer_norm_eps": tower.layer_norm_eps, **sizes}


def _layer(config: Any, name: str) -> int:
    """Return the layer counted from the end, where -1 is the last."""
    layer, count = config.vision_feature_layer, config.vision_config.num_hidden_layers
    if isinstance(layer, int) and layer > 0:
        layer -= count + 1
    if not isinstance(layer, int) or not -count <= layer < 0:
        raise InputError(
            f"{name}: vision_feature_layer is {config.vision_feature_layer}, and one layer of the "
            f"tower's {count} is read here: give a model that takes one."
        )
    return layer


LLAVA = Family(
    kind="llava",
    processor=LlavaProcessor,
    image_processors=[kind + backend for kind in PROCESSORS for backend in ("", "Pil")],
    described=_described,
)
