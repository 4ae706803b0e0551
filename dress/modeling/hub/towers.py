"""Towers of the shapes that transformers names, as open_clip's and timm's own networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import transformers
from open_clip.timm_model import TimmModel
from open_clip.transformer import QuickGELU, VisionTransformer
from PIL import Image
from timm.models.vision_transformer import VisionTransformer as TimmTransformer
from torch import Tensor, nn
from transformers import BaseImageProcessor

from dress.errors import InputError

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "quick_gelu": QuickGELU,
    "gelu": nn.GELU,
    "gelu_pytorch_tanh": partial(nn.GELU, approximate="tanh"),
}
CLIP, SIGLIP = "clip_vision_model", "siglip_vision_model"
SIZES = (
    *("image_size", "patch_size", "hidden_size", "intermediate_size"),
    *("num_hidden_layers", "num_attention_heads"),
)
# by the image processors that read them; the last is InternVL's
KINDS = ("CLIP", "Siglip", "Llava", "LlavaOnevision", "Idefics3", "SmolVLM", "GotOcr2")
IMAGE_PROCESSORS: Mapping[str, type[BaseImageProcessor]] = {
    name: getattr(transformers, name)
    for kind in KINDS
    for name in (f"{kind}ImageProcessor", f"{kind}ImageProcessorPil")
}
OF_VIEWS = tuple(made for name, made in IMAGE_PROCESSORS.items() if "Onevision" in name)


def tower_of(config: Mapping[str, Any]) -> VisionTransformer | TimmModel:
    """Build a tower with random weights from model_type, the sizes, hidden_act, layer_norm_eps."""
    width, size = config["hidden_size"], config["image_size"]
    if config["model_type"] == CLIP:
        visual = VisionTransformer(
            image_size=size,
            patch_size=config["patch_size"],
            width=width,
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            mlp_ratio=_ratio(config),
            act_layer=ACTIVATIONS[config["hidden_act"]],
        )
    else:
        visual = _siglip(config)
    for module in visual.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = config["layer_norm_eps"]
    return visual


def _siglip(config: Mapping[str, Any]) -> TimmModel:
    with torch.device("meta"):  # the network in it is exchanged
        visual = TimmModel(
            "vit_tiny_patch16_224", 1, image_size=config["image_size"], pool="", proj="none"
        )
    visual.trunk = TimmTransformer(
        img_size=config["image_size"],
        patch_size=config["patch_size"],
        embed_dim=config["hidden_size"],
        depth=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        mlp_ratio=_ratio(config),
        class_token=False,
        global_pool="",
        num_classes=0,
        act_layer=ACTIVATIONS[config["hidden_act"]],
    )
    return visual


def _ratio(config: Mapping[str, Any]) -> float:
    return (config["intermediate_size"] + 0.5) / config["hidden_size"]  # both libraries round down


def image_processor_of(config: Mapping[str, Any]) -> BaseImageProcessor:
    """Build one of the image processors that make one square; the rest are refused."""
    settings = dict(config)
    kind = str(settings.pop("image_processor_type", "")).removesuffix("Fast")
    if kind not in IMAGE_PROCESSORS:
        raise InputError(
            f"the image processor {kind!r} is not one of {', '.join(IMAGE_PROCESSORS)}: give "
            "another model."
        )
    return IMAGE_PROCESSORS[kind](**settings)


def pixels_of(processor: BaseImageProcessor, image: Image.Image) -> Tensor:
    """Prepare a picture without scaling and normalising it: bytes [height width 3]."""
    views = isinstance(processor, OF_VIEWS)
    shown: Any = [[image, image]] if views else image  # two of one text are shown whole
    made = processor(shown, do_rescale=False, do_normalize=False, return_tensors="pt")
    squares = made["pixel_values"].flatten(0, -4)  # some nest the pictures of a text
    return squares[0].to(torch.uint8).permute(1, 2, 0).contiguous()
