"""Pictures of an artifact, small enough to stand in a page."""

from __future__ import annotations

import base64
from pathlib import Path

from dress.chat.images import thumbnail
from dress.data.rejects import Reject

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
        small = thumbnail(data, MAX_SIDE)
    except Reject:
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(small).decode('ascii')}"
