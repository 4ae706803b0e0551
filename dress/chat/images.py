"""Image files to upright 8-bit RGB pictures; what cannot be shown is a Reject."""

from __future__ import annotations

import warnings
from contextlib import suppress
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dress.data.rejects import Reject

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 50_000_000
_HASHED = 256  # bytes


class ImageKey:
    """Stands for an image file: equal to another where every byte is.

    Its hash sees the last few bytes only. To hash whole photographs takes a fiftieth of the time of
    decoding them, and two of them are hardly ever compared.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageKey) and self.data == other.data

    def __hash__(self) -> int:
        return hash((len(self.data), self.data[-_HASHED:]))


def decode_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None
) -> Image.Image:
    """Decode the first picture of a JPEG, PNG or WebP file; its header is judged before a pixel.

    CMYK, grey and palette colours become RGB, 16 bits per channel the upper 8, an alpha channel is
    dropped, and the EXIF orientation is applied unless it is damaged. With `at_least` a JPEG is
    decoded at 1/2, 1/4 or 1/8 of its size where both sides keep so many pixels (libjpeg scales in
    the DCT), which saves most of the time of shrinking it afterwards.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, and of sizes judged here
            with _opened(data, max_pixels=max_pixels) as image:
                if at_least is not None:
                    image.draft(None, (at_least, at_least))
                image.load()
                return as_rgb(_eight_bits(_upright(image)))
    except Reject:
        raise
    except UnidentifiedImageError:
        raise Reject("not a JPEG, PNG or WebP image") from None
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        raise Reject("unreadable image", detail=f"{type(error).__name__}: {error}"[:120]) from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB; an image that is RGB already is returned as it is, not copied."""
    return image if image.mode == "RGB" else image.convert("RGB")


def _opened(data: bytes, *, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(BytesIO(data), formats=IMAGE_FORMATS)
    except Image.DecompressionBombError as error:
        raise Reject("image too large", detail=str(error).split(",")[0]) from None
    if image.width * image.height > max_pixels:
        raise Reject("image too large", detail=f"{image.width} x {image.height} pixels")
    return image


def _upright(image: Image.Image) -> Image.Image:
    with suppress(Exception):  # of a damaged tag; the pixels themselves were read
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Keep the upper byte of 16-bit grey, which Pillow would clip to white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
