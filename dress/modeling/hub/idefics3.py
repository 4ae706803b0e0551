"""Models of transformers' types idefics3 and smolvlm: SigLIP, pixel shuffle, one layer."""

from __future__ import annotations

from typing import Any

from transformers import Idefics3Processor, SmolVLMProcessor

from dress.modeling.hub.family import Family
from dress.modeling.hub.transformers_tower import SHUFFLE, side_of

SHAPE = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_channels", "image_size", "patch_size", "hidden_act", "layer_norm_eps"),
)


def _described(config: Any, name: str) -> dict[str, dict[str, Any]]:
    tower = config.vision_config
    shape = {key: getattr(tower, key) for key in SHAPE}
    return {
        "vision": {
            "config": {"model_type": type(tower).model_type, **shape, SHUFFLE: config.scale_factor},
            "image_size": side_of(tower.image_size),
            "layer": -1,
            "final_norm": True,
        },
        "projector": {
            "hidden_dim": config.text_config.hidden_size,
            "depth": 1,
            "activation": "linear",
            "bias": False,
        },
    }


IDEFICS3, SMOLVLM = (
    Family(
        kind=kind,
        processor=processor,
        image_processors=[f"{name}ImageProcessor", f"{name}ImageProcessorPil"],
        described=_described,
        one_tile={"do_image_splitting": False},
        told={"rows": [[0]], "cols": [[0]]},
    )
    for kind, name, processor in (
        ("idefics3", "Idefics3", Idefics3Processor),
        ("smolvlm", "SmolVLM", SmolVLMProcessor),
    )
)
