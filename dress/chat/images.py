"""Image files and PIL images to upright 8-bit RGB pictures; what cannot be shown is a Reject."""

from __future__ import annotations

import base64
import math
import warnings
from contextlib import AbstractContextManager, nullcontext, suppress
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from dress.errors import Reject

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 50_000_000
_HASHED = 256  # bytes
Resize = Literal["squash", "crop", "pad"]
Interpolation = Literal["bicubic", "bilinear"]
Fill = tuple[int, int, int]
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
MAX_RATIO = 100  # of a picture's sides, before the shorter one is scaled


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
    source: bytes | Image.Image, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None
) -> Image.Image:
    """Decode the first picture of a JPEG, PNG or WebP file, or show a PIL image as its file.

    Its size is judged before a pixel. With `at_least` a JPEG file is decoded at 1/2, 1/4 or 1/8 of
    its size where both sides keep so many pixels (libjpeg scales in the DCT), which saves most of
    the time of shrinking it afterwards.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, and of sizes judged here
            with _opened(source) as image:
                if image.width * image.height > max_pixels:
                    size = f"{image.width} x {image.height} pixels"
                    raise Reject("image too large", detail=size)
                if at_least is not None and image is not source:
                    image.draft(None, (at_least, at_least))
                image.load()
                return as_rgb(image)
    except Reject:
        raise
    except UnidentifiedImageError:
        raise Reject("not a JPEG, PNG or WebP image") from None
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        raise Reject("unreadable image", detail=f"{type(error).__name__}: {error}"[:120]) from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Turn an image upright and convert it to RGB; one that is both is returned, not copied.

    CMYK, grey and palette colours become RGB, wider pixels 8 bits, an alpha channel is dropped, and
    the EXIF orientation is applied unless it is damaged.
    """
    image = _eight_bits(_upright(image))
    if image.mode == "La":  # which Pillow converts to nothing else
        image = image.convert("LA")
    return image if image.mode == "RGB" else image.convert("RGB")


def png(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def thumbnail(data: bytes, side: int) -> bytes:
    """Shrink an image file to a JPEG of at most `side` pixels a side."""
    image = decode_image(data, at_least=2 * side)
    image.thumbnail((side, side))
    stream = BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def as_shown(data: bytes) -> bytes:
    """Return an image file that every reader shows as we do: itself where it is plain, or a PNG."""
    shown = decode_image(data)
    with _opened(data) as image:
        plain = image.mode in ("L", "RGB") and "transparency" not in image.info
        plain &= _orientation(image) == 1 and not getattr(image, "is_animated", False)
    return data if plain else png(shown)


def data_url(data: bytes) -> str:
    """Write an image file, as every reader shows it alike, as the address that chat servers take.

    Raises Reject for what cannot be shown.
    """
    shown = as_shown(data)
    with _opened(shown) as image:
        kind = str(image.format).lower()
    return f"data:image/{kind};base64,{base64.b64encode(shown).decode()}"


def _opened(source: bytes | Image.Image) -> AbstractContextManager[Image.Image]:
    if isinstance(source, Image.Image):
        return nullcontext(source)  # stays open, as it is not ours
    try:
        return Image.open(BytesIO(source), formats=IMAGE_FORMATS)
    except Image.DecompressionBombError as error:
        raise Reject("image too large", detail=str(error).split(",")[0]) from None


def _upright(image: Image.Image) -> Image.Image:
    with suppress(Exception):  # of a damaged tag; the pixels themselves were read
        if _orientation(image) != 1:
            return ImageOps.exif_transpose(image)
    return image


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    return 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring grey of more bits to 8, which Pillow would clip to white.

    16 bits keep the upper byte. Of 32 bits or floats the largest value tells the scale: up to 1
    (floats), 255 or 65,535.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode not in ("I", "F"):
        return image
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0, neginf=0)
    if values.max() > 255:
        values //= 256
    elif image.mode == "F" and values.max() <= 1:
        values *= 255
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


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
