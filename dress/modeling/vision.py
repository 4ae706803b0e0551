"""Vision towers: any open_clip image encoder as a source of patch tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Float, UInt8
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import BaseImageProcessor

from dress.chat.images import Interpolation, Resize
from dress.errors import InputError
from dress.modeling.hub.towers import image_processor_of, tower_of
from dress.modeling.hub.transformers_tower import LEADING, transformers_tower
from dress.modeling.tower import Tower
from dress.modeling.tower_settings import check_name, tag_of, trained_with


class VisionTower(Tower):
    """Give the patch tokens (no class token) of one layer of an open_clip tower.

    Layer -1 is the tower's output, after its final norm unless `final_norm` is false; earlier
    layers are raw hidden states (-2 is LLaVA's). `visual` loses what that layer does not need.
    The other arguments are those of `Tower`.
    """

    def __init__(
        self,
        visual: VisionTransformer | TimmModel,
        *,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        layer: int = -1,
        resize: Resize = "squash",
        interpolation: Interpolation = "bicubic",
        draft: bool = False,
        final_norm: bool = True,
        image_processor: BaseImageProcessor | None = None,
    ) -> None:
        super().__init__(
            image_size=image_size,
            mean=mean,
            std=std,
            resize=resize,
            interpolation=interpolation,
            draft=draft,
            image_processor=image_processor,
        )
        own_pool = getattr(visual, "attn_pool", None) is not None
        self.normalize = layer == -1 and final_norm and not own_pool
        self.visual = _prune(visual, layer=layer, keep_norm=self.normalize)
        self.num_tokens, self.dim = self._measure()

    def checkpoint_activations(self) -> None:
        self.visual.set_grad_checkpointing(True)

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
    resize: Resize | None = None,
    interpolation: Interpolation | None = None,
    quick_gelu: bool | None = None,
    draft: bool = False,
    final_norm: bool = True,
    image_processor: Mapping[str, Any] | None = None,
) -> Tower:
    """Build a tower from open_clip's registry, or from an own `config` (a vision_cfg).

    The weights of an own `config` are those of the safetensors file `pretrained`, without it
    random. A `config` with a model_type is one of transformers (hub/towers.py,
    hub/transformers_tower.py), with the settings of its `image_processor`. `resize`,
    `interpolation` and `quick_gelu` (the activation) are by default those with which the weights
    were trained. With `random_init` nothing is read or downloaded; `pretrained` then gives these
    and the pixel statistics alone.
    """
    if (name is None) == (config is None):
        raise InputError(
            "model.vision: give `name` (an open_clip model) or `config` (its shape), not both."
        )
    given = image_processor or {}
    if config is not None and config.get("model_type") in LEADING:
        return transformers_tower(config, layer=layer, final_norm=final_norm, image_processor=given)
    if name is not None:
        check_name(name, pretrained=pretrained, random_init=random_init)
    tag = tag_of(name, pretrained)
    own = trained_with(name, pretrained)
    quick_gelu = own["quick_gelu"] if quick_gelu is None else quick_gelu
    visual = _visual(
        name,
        pretrained=None if random_init else pretrained,
        config=config,
        image_size=image_size,
        quick_gelu=quick_gelu,
    )
    if quick_gelu and isinstance(visual, TimmModel):
        raise InputError(f"model.vision.quick_gelu: {name} has an activation of its own; leave it.")
    tower = VisionTower(
        visual,
        image_size=_square(visual),
        mean=given.get("image_mean") or tag.get("mean") or open_clip.OPENAI_DATASET_MEAN,
        std=given.get("image_std") or tag.get("std") or open_clip.OPENAI_DATASET_STD,
        layer=layer,
        resize=resize or own["resize"],
        interpolation=interpolation or own["interpolation"],
        draft=draft,
        final_norm=final_norm,
        image_processor=image_processor_of(given) if given else None,
    )
    if name is None and pretrained is not None and not random_init:
        _read_file(tower, Path(pretrained))
    return tower


def _visual(
    name: str | None,
    *,
    pretrained: str | None,
    config: Mapping[str, Any] | None,
    image_size: int | None,
    quick_gelu: bool,
) -> VisionTransformer | TimmModel:
    """Build the image encoder alone; without a name, or without `pretrained`, it is random."""
    if config is not None and "model_type" in config:
        visual: nn.Module = tower_of(config)
    elif name is None or pretrained is None:
        shape = {"vision_cfg": dict(config)} if config else open_clip.get_model_config(name)
        visual = _random_visual(shape, image_size=image_size, quick_gelu=quick_gelu)
    else:
        visual = _pretrained_visual(
            name, pretrained=pretrained, image_size=image_size, quick_gelu=quick_gelu
        )
    if not isinstance(visual, VisionTransformer | TimmModel):
        raise InputError(f"model.vision.name: {name} yields no patch tokens; choose a ViT.")
    return visual


def _random_visual(
    shape: Mapping[str, Any], *, image_size: int | None, quick_gelu: bool
) -> nn.Module:
    vision = dict(shape["vision_cfg"])
    known = {field.name for field in fields(CLIPVisionCfg)}
    if unknown := sorted(set(vision) - known):
        raise InputError(
            f"model.vision.config: unknown key {unknown[0]!r}; open_clip has {sorted(known)}."
        )
    is_timm = vision.get("timm_model_name") is not None
    if image_size is not None and not is_timm:
        vision["image_size"] = image_size
    visual = _build_vision_tower(
        embed_dim=shape.get("embed_dim", vision.get("width", 1)),
        vision_cfg=CLIPVisionCfg(**vision | {"timm_model_pretrained": False}),
        quick_gelu=quick_gelu,
    )
    if image_size is not None and is_timm:
        visual.set_input_size(image_size)
    return visual


def _pretrained_visual(
    name: str, *, pretrained: str, image_size: int | None, quick_gelu: bool
) -> nn.Module:
    # open_clip alone knows all checkpoint formats, so its text tower exists for a moment here.
    try:
        model = open_clip.create_model(
            name,
            pretrained=pretrained,
            force_image_size=image_size,
            force_quick_gelu=quick_gelu,
            quick_gelu=quick_gelu,  # this one can switch it off too, but open_clip warns of it
            require_pretrained=True,
        )
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"model.vision.pretrained: the weights {pretrained!r} of {name} could not be loaded "
            f"({type(error).__name__}); fetch them once with a network, give a file, or set "
            "model.vision.random_init=true."
        ) from error
    return model.visual


def _read_file(tower: VisionTower, path: Path) -> None:
    """Give a tower its weights from a file, of open_clip's whole CLIP or of an artifact's tower."""
    key = f"model.vision.pretrained: {path}"
    try:
        with safe_open(path, "pt") as file:
            tower.load_state_dict({name: file.get_tensor(name) for name in tower.state_dict()})
    except OSError as error:
        raise InputError(f"{key} cannot be read ({error.strerror or error}).") from error
    except (SafetensorError, RuntimeError) as error:
        why = str(error).splitlines()[-1].strip()
        raise InputError(
            f"{key} does not hold the weights of model.vision.config as safetensors ({why})."
        ) from error


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
