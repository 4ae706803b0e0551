"""Pictures of an artifact, small enough to stand in a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

MAX_SIDE = 224  # pixels


def picture(folder: Path, name: str) -> str | None:
    """Return an image file of an artifact, made small, as a data URI; None if it cannot be read."""
    path = (folder / name).resolve()
    # the name comes from a file: it must not lead out of the artifact
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    return picture_of(path.read_bytes())


def picture_of(data: bytes) -> str | None:
    """Return an encoded image, made small, as a data URI; None if it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.draft("RGB", (2 * MAX_SIDE, 2 * MAX_SIDE))
            image = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
