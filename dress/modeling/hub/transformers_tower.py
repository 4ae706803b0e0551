"""Vision towers that are transformers' own networks, for families that open_clip does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel

from dress.errors import InputError
from dress.modeling.hub.towers import image_processor_of
from dress.modeling.tower import Tower

IDEFICS3, SMOLVLM, INTERNVL = "idefics3_vision", "smolvlm_vision", "internvl_vision"
LEADING = {IDEFICS3: 0, SMOLVLM: 0, INTERNVL: 1}  # tokens before those of the patches
SHUFFLE = "pixel_shuffle"


class TransformersTower(Tower):
    """Give the patch tokens behind the last layer, `shuffle` x `shuffle` neighbours as one.

    This is what `get_image_features` of transformers hands to the weights of its projector.
    `leading` tokens before the patches, such as a class token, are left out.
    """

    def __init__(
        self,
        tower: PreTrainedModel,
        *,
        leading: int,
        shuffle: int,
        image_size: int,
        patch_size: int,
        width: int,
        image_processor: Mapping[str, Any],
    ) -> None:
        super().__init__(
            image_size=image_size,
            mean=image_processor["image_mean"],
            std=image_processor["image_std"],
            image_processor=image_processor_of(image_processor),
        )
        self.tower, self.leading, self.shuffle = tower, leading, shuffle
        self.num_tokens = (image_size // patch_size // shuffle) ** 2
        self.dim = width * shuffle**2

    def forward(
        self, pixels: UInt8[Tensor, "image height width 3"]
    ) -> Float[Tensor, "image patch dim"]:
        dtype = next(self.parameters()).dtype
        states = self.tower(pixel_values=self.normalized(pixels).to(dtype)).last_hidden_state
        return shuffled(states[:, self.leading :], self.shuffle)

    def checkpoint_activations(self) -> None:
        self.tower.gradient_checkpointing_enable({"use_reentrant": False})


def shuffled(
    states: Float[Tensor, "image patch dim"], factor: int
) -> Float[Tensor, "image merged wide"]:
    """Lay squares of `factor` x `factor` patches side by side, row by row (pixel shuffle)."""
    side = round(states.shape[1] ** 0.5) // factor
    squares = states.unflatten(1, (side, factor, side, factor))
    return squares.transpose(2, 3).flatten(3).flatten(1, 2)


def transformers_tower(
    config: Mapping[str, Any],
    *,
    layer: int,
    final_norm: bool,
    image_processor: Mapping[str, Any],
) -> TransformersTower:
    """Build a tower with random weights from the shape that transformers names."""
    if layer != -1 or not final_norm:
        raise InputError(
            f"model.vision: a tower of type {config['model_type']} is read behind its last norm: "
            "leave layer and final_norm."
        )
    if SHUFFLE not in config or not image_processor:
        raise InputError(
            f"model.vision: a tower of type {config['model_type']} needs config.{SHUFFLE} and "
            "image_processor: give model=llava_hf model.name=<folder of a released model>."
        )
    shape = dict(config)
    kind, shuffle = shape.pop("model_type"), shape.pop(SHUFFLE)
    network = AutoModel.from_config(AutoConfig.for_model(kind, **shape), trust_remote_code=False)
    return TransformersTower(
        network,
        leading=LEADING[kind],
        shuffle=shuffle,
        image_size=side_of(shape["image_size"]),
        patch_size=side_of(shape["patch_size"]),
        width=shape["hidden_size"],
        image_processor=image_processor,
    )


def side_of(size: Any) -> int:
    """Return the side of a square that is written as a number or as two equal ones."""
    sides = {*size} if isinstance(size, list | tuple) else {size}
    if len(sides) != 1:
        raise InputError(f"a vision tower for pictures of {size} is not read: give a square one.")
    return int(sides.pop())
