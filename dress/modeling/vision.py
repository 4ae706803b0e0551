"""Vision towers: any open_clip image encoder as a source of patch tokens."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from jaxtyping import Float, UInt8
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from PIL import Image
from torch import Tensor, nn

from dress.chat.images import as_rgb
from dress.errors import InputError

LIST_NAMES = "python -c 'import open_clip; print(open_clip.list_models())'"


class VisionTower(nn.Module):
    """Give the patch tokens (no class token) of one layer of an open_clip tower.

    Layer -1 is the tower's output, after its final norm; earlier layers are raw hidden states
    (-2 is LLaVA's choice). Whatever that layer does not need is dropped from `visual`.
    `draft` asks for JPEGs decoded at a fraction of their size that is no smaller than the square.
    Pixels arrive as bytes, a quarter of what floats take on their way, and are normalised here.
    """

    def __init__(
        self,
        visual: VisionTransformer | TimmModel,
        *,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        layer: int = -1,
        draft: bool = False,
    ) -> None:
        super().__init__()
        self.normalize = layer == -1 and getattr(visual, "attn_pool", None) is None
        self.visual = _prune(visual, layer=layer, keep_norm=self.normalize)
        self.image_size, self.draft = image_size, draft
        self.mean, self.std = tuple(mean), tuple(std)
        self.num_tokens, self.dim = self._measure()

    def preprocess(self, image: Image.Image) -> UInt8[Tensor, "height width 3"]:
        """Resize to the tower's square; deterministic, no augmentation."""
        size = (self.image_size, self.image_size)
        image = as_rgb(image)
        if image.size != size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image))

    def normalized(
        self, pixels: UInt8[Tensor, "image height width 3"]
    ) -> Float[Tensor, "image 3 height width"]:
        """Scale to 0 ... 1, subtract the mean and divide by the deviation, in float32 at least."""
        dtype = torch.promote_types(next(self.parameters()).dtype, torch.float32)
        channels = zip(pixels.unbind(-1), self.mean, self.std, strict=True)
        planes = [(channel.to(dtype) / 255 - mean) / std for channel, mean, std in channels]
        return torch.stack(planes, dim=1)

    def forward(
        self, pixels: UInt8[Tensor, "image height width 3"]
    ) -> Float[Tensor, "image patch dim"]:
        output = self.visual.forward_intermediates(
            self.normalized(pixels).to(next(self.parameters()).dtype),
            indices=[-1],
            stop_early=True,
            normalize_intermediates=self.normalize,
            intermediates_only=True,
            output_fmt="NCHW",  # the one format that every timm network has
        )
        return output["image_intermediates"][0].flatten(2).transpose(1, 2)

    def _measure(self) -> tuple[int, int]:
        """Read the output shape from a run on the meta device, which costs nothing."""
        tensors = dict(self.named_parameters()) | dict(self.named_buffers())
        meta = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}
        shape = (1, self.image_size, self.image_size, 3)
        pixels = torch.zeros(shape, dtype=torch.uint8, device="meta")
        _, num_tokens, dim = torch.func.functional_call(self, meta, (pixels,)).shape
        return num_tokens, dim


def open_clip_tower(
    *,
    name: str | None = None,
    pretrained: str | None = None,
    config: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    layer: int = -1,
    random_init: bool = False,
    draft: bool = False,
) -> VisionTower:
    """Build a tower from open_clip's registry, or from an own `config` (a vision_cfg) at random.

    With `random_init` nothing is downloaded; `pretrained` then only gives the pixel statistics.
    """
    if (name is None) == (config is None):
        raise InputError(
            "model.vision: give `name` (an open_clip model) or `config` (its shape), not both."
        )
    if config is not None:
        visual = _random_visual(model_config={"vision_cfg": dict(config)}, image_size=image_size)
    else:
        assert name is not None
        _check_name(name, pretrained=pretrained, random_init=random_init)
        if random_init:
            model_config = open_clip.get_model_config(name)
            visual = _random_visual(model_config=model_config, image_size=image_size)
        else:
            assert pretrained is not None
            visual = _pretrained_visual(name, pretrained=pretrained, image_size=image_size)
    if not isinstance(visual, VisionTransformer | TimmModel):
        raise InputError(f"model.vision.name: {name} yields no patch tokens; choose a ViT.")
    mean, std = _pixel_statistics(name, pretrained=pretrained)
    return VisionTower(
        visual, image_size=_square(visual), mean=mean, std=std, layer=layer, draft=draft
    )


def _random_visual(*, model_config: Mapping[str, Any], image_size: int | None) -> nn.Module:
    vision = dict(model_config["vision_cfg"])
    known = {field.name for field in fields(CLIPVisionCfg)}
    if unknown := sorted(set(vision) - known):
        raise InputError(
            f"model.vision.config: unknown key {unknown[0]!r}; open_clip has {sorted(known)}."
        )
    is_timm = vision.get("timm_model_name") is not None
    if image_size is not None and not is_timm:
        vision["image_size"] = image_size
    visual = _build_vision_tower(
        embed_dim=model_config.get("embed_dim", vision.get("width", 1)),
        vision_cfg=CLIPVisionCfg(**vision | {"timm_model_pretrained": False}),
        quick_gelu=model_config.get("quick_gelu", False),
    )
    if image_size is not None and is_timm:
        visual.set_input_size(image_size)
    return visual


def _pretrained_visual(name: str, *, pretrained: str, image_size: int | None) -> nn.Module:
    # open_clip alone knows all checkpoint formats, so its text tower exists for a moment here.
    statistics = open_clip.get_pretrained_cfg(name, pretrained)
    try:
        model = open_clip.create_model(
            name,
            pretrained=pretrained,
            force_image_size=image_size,
            force_quick_gelu=statistics.get("quick_gelu", False),
            require_pretrained=True,
        )
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"model.vision.pretrained: the weights {pretrained!r} of {name} could not be loaded "
            f"({type(error).__name__}); fetch them once with a network, give a file, or set "
            "model.vision.random_init=true."
        ) from error
    return model.visual


def _check_name(name: str, *, pretrained: str | None, random_init: bool) -> None:
    if name not in open_clip.list_models():
        close = difflib.get_close_matches(name, open_clip.list_models(), n=5, cutoff=0.3)
        raise InputError(
            f"model.vision.name: open_clip has no model {name!r}; close: {', '.join(close)} "
            f"(all of them: {LIST_NAMES})."
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is None and not random_init:
        raise InputError(
            f"model.vision.pretrained: choose one of {tags} for {name}, or set random_init=true."
        )
    if pretrained is not None and pretrained not in tags and not Path(pretrained).is_file():
        raise InputError(
            f"model.vision.pretrained: {name} has no weights {pretrained!r}; it has {tags}."
        )


def _pixel_statistics(
    name: str | None, *, pretrained: str | None
) -> tuple[Sequence[float], Sequence[float]]:
    statistics = open_clip.get_pretrained_cfg(name, pretrained) if name and pretrained else {}
    mean = statistics.get("mean") or open_clip.OPENAI_DATASET_MEAN
    std = statistics.get("std") or open_clip.OPENAI_DATASET_STD
    return mean, std


def _prune(
    visual: VisionTransformer | TimmModel, *, layer: int, keep_norm: bool
) -> VisionTransformer | TimmModel:
    trunk = visual.trunk if isinstance(visual, TimmModel) else visual
    try:
        trunk.prune_intermediate_layers([layer], prune_norm=not keep_norm, prune_head=True)
    except AssertionError as error:
        raise InputError(f"model.vision.layer: {layer} is outside the tower ({error}).") from error
    if isinstance(visual, TimmModel):
        visual.head = nn.Sequential()
    else:
        visual.attn_pool = None
    return visual


def _square(visual: VisionTransformer | TimmModel) -> int:
    height, width = visual.image_size
    if height != width:
        raise InputError(f"model.vision.image_size: {height}x{width} is not square; set one size.")
    return height
