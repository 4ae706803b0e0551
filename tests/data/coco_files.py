"""Tiny files in COCO's format, and the real ones where they lie beside the project."""

from __future__ import annotations

import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CATEGORIES = ("dog", "cat", "bicycle", "scissors")
IMAGES: dict[int, tuple[list[str], list[str]]] = {
    1: (["a dog sits beside a bicycle", "A puppy and a bike."], ["dog", "bicycle"]),
    2: (["A cat on a mat."], ["cat"]),
    3: (["Somebody cuts paper", "Scissors and paper."], ["scissors"]),
}


def photograph(seed: int, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_coco(root: Path, images: dict[int, tuple[list[str], list[str]]] | None = None) -> Path:
    """Write photographs, captions and instances as CocoSource expects them by default."""
    images = IMAGES if images is None else images
    folder = root / "coco/images"
    folder.mkdir(parents=True)
    listed = [{"id": number, "file_name": f"{number:03d}.jpg"} for number in images]
    captions: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number, (texts, names) in images.items():
        (folder / f"{number:03d}.jpg").write_bytes(photograph(number))
        captions += [{"image_id": number, "caption": text} for text in texts]
        objects += [
            {"image_id": number, "category_id": CATEGORIES.index(name), "area": 10.0 - place}
            for place, name in enumerate(names)
        ]
    categories = [{"id": i, "name": name} for i, name in enumerate(CATEGORIES)]
    write_json(root / "coco/captions.json", {"images": listed, "annotations": captions})
    write_json(
        root / "coco/instances.json",
        {"images": listed, "annotations": objects, "categories": categories},
    )
    return root


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def shared_data(*parts: str) -> Path:
    """Return a real file or folder, or skip the test where it is absent."""
    beside = Path(__file__).parents[2].parent / "shared/data"
    path = Path(os.environ.get("DRESS_SHARED_DATA", beside)).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is absent: set DRESS_SHARED_DATA to the folder of real data")
    return path
