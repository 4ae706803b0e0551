"""Models of transformers' type internvl: InternViT, pixel shuffle, norm and two layers."""

from __future__ import annotations

from typing import Any

from transformers import InternVLProcessor

from dress.modeling.hub.family import Family, choice
from dress.modeling.hub.transformers_tower import SHUFFLE, side_of

SHAPE = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_channels", "image_size", "patch_size", "hidden_act", "layer_norm_eps"),
    *("attention_bias", "use_qk_norm", "norm_type", "use_mask_token", "use_mean_pooling"),
    *("use_absolute_position_embeddings", "layer_scale_init_value"),
)


def _described(config: Any, name: str) -> dict[str, dict[str, Any]]:
    tower, strategy = config.vision_config, config.vision_feature_select_strategy
    choice("vision_feature_layer", config.vision_feature_layer, (-1,), name)
    choice("vision_feature_select_strategy", strategy, ("default",), name)
    shape = {key: getattr(tower, key) for key in SHAPE}
    square = {key: side_of(shape[key]) for key in ("image_size", "patch_size")}
    merged = round(1 / config.downsample_ratio)
    return {
        "vision": {
            "config": {"model_type": type(tower).model_type, **shape, **square, SHUFFLE: merged},
            "image_size": square["image_size"],
            "layer": -1,
            "final_norm": True,
        },
        "projector": {
            "hidden_dim": config.text_config.hidden_size,
            "depth": 2,
            "activation": choice(
                "projector_hidden_act", config.projector_hidden_act, ("gelu",), name
            ),
            "bias": True,
            "norm": True,
        },
    }


INTERNVL = Family(
    kind="internvl",
    processor=InternVLProcessor,
    image_processors=("GotOcr2ImageProcessor", "GotOcr2ImageProcessorPil"),
    described=_described,
    one_tile={"max_patches": 1},
    told={"num_patches": [1]},
)
