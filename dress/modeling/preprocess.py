"""A picture to the square that a tower sees, as 8-bit RGB; deterministic, no augmentation."""

from __future__ import annotations

import math
from typing import Literal

from PIL import Image

from dress.chat.images import MAX_PIXELS, as_rgb

Resize = Literal["squash", "crop", "pad"]
Interpolation = Literal["bicubic", "bilinear"]
Fill = tuple[int, int, int]

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
MAX_RATIO = 100  # of a picture's sides, before the shorter one is scaled


def to_square(
    image: Image.Image, side: int, *, resize: Resize, interpolation: Interpolation, fill: Fill
) -> Image.Image:
    """Make a picture `side` pixels wide and high.

    `squash` gives up its proportions, `crop` scales its shorter side and keeps the middle, as
    open_clip and torchvision do, and `pad` first makes it a square with `fill` on two sides, as
    LLaVA-1.5 does.
    """
    image = as_rgb(image)
    if resize == "pad":
        image = _padded(image, fill)
    if resize == "crop":
        return _cropped(image, side, FILTERS[interpolation])
    return image.resize((side, side), FILTERS[interpolation])


def _cropped(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    image = _middle(image, *(min(n, MAX_RATIO * min(image.size)) for n in image.size))
    shorter = min(image.size)
    width, height = (side if n == shorter else int(side * n / shorter) for n in image.size)
    return _middle(image.resize((width, height), resample), side, side)


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    if image.size == (width, height):
        return image
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _padded(image: Image.Image, fill: Fill) -> Image.Image:
    shrink = math.ceil(max(image.size) / math.sqrt(MAX_PIXELS))
    if shrink > 1:  # the square would be too large
        image = image.reduce(shrink)
    longer = max(image.size)
    square = Image.new("RGB", (longer, longer), fill)
    square.paste(image, ((longer - image.width) // 2, (longer - image.height) // 2))
    return square
