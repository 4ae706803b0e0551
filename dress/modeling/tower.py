"""What vision towers share, whichever library their networks come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn
from transformers import BaseImageProcessor

from dress.chat.images import Interpolation, Resize, as_rgb, to_square
from dress.errors import InputError
from dress.modeling.hub.towers import pixels_of


class Tower(nn.Module):
    """Make a picture the tower's square, and give its pixels the scale that the network knows.

    `resize` and `interpolation` are the rule by which a picture becomes the square (see
    `to_square`; padding has the colour of `mean`). `draft` asks for JPEGs decoded at a fraction of
    their size of which no side is smaller than the square. An `image_processor` of transformers
    replaces that rule, for models that were trained with it.
    Pixels arrive as bytes, a quarter of what floats take on their way, and are normalised here.
    `forward` gives `num_tokens` tokens of width `dim` for each picture.
    """

    num_tokens: int
    dim: int

    def __init__(
        self,
        *,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        resize: Resize = "squash",
        interpolation: Interpolation = "bicubic",
        draft: bool = False,
        image_processor: BaseImageProcessor | None = None,
    ) -> None:
        super().__init__()
        self.image_processor = image_processor
        self.image_size, self.draft = image_size, draft
        self.resize = _choice("resize", resize, get_args(Resize))
        self.interpolation = _choice("interpolation", interpolation, get_args(Interpolation))
        self.mean, self.std = tuple(mean), tuple(std)

    def checkpoint_activations(self) -> None:
        """Let layers keep their input alone and run once more in backward passes."""
        raise NotImplementedError

    def preprocess(self, image: Image.Image) -> UInt8[Tensor, "height width 3"]:
        """Make a picture the tower's square by its own rule; bytes, not yet normalised."""
        if self.image_processor is not None:
            return pixels_of(self.image_processor, as_rgb(image))
        red, green, blue = (int(mean * 255) for mean in self.mean)
        square = to_square(
            image,
            self.image_size,
            resize=self.resize,
            interpolation=self.interpolation,
            fill=(red, green, blue),
        )
        return torch.from_numpy(np.array(square))

    def normalized(
        self, pixels: UInt8[Tensor, "image height width 3"]
    ) -> Float[Tensor, "image 3 height width"]:
        """Scale to 0 ... 1, subtract the mean and divide by the deviation, in float32 at least."""
        dtype = torch.promote_types(next(self.parameters()).dtype, torch.float32)
        channels = zip(pixels.unbind(-1), self.mean, self.std, strict=True)
        planes = [(channel.to(dtype) / 255 - mean) / std for channel, mean, std in channels]
        return torch.stack(planes, dim=1)


def _choice(key: str, value: Any, choices: Sequence[str]) -> Any:
    if value not in choices:
        raise InputError(f"model.vision.{key} is {value!r}: choose {', '.join(choices)}.")
    return value
