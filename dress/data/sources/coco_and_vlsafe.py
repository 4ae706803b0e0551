"""COCO's photographs with captions and objects, and VLSafe's requests about them, as one source."""

from __future__ import annotations

from dress.data.sources.coco import CocoSource
from dress.data.sources.photographs import Photographs
from dress.data.sources.vlsafe import VLSafeSource
from dress.settings import Positive, Whole, checked


@checked
def coco_and_vlsafe(
    *,
    root: str | None,
    images: str = "coco/images",
    captions: str = "coco/captions.json",
    instances: str = "coco/instances.json",
    synonyms_file: str | None = None,
    candidates: Positive = 3,
    limit: Whole | None = None,
    vlsafe_images: str = "coco/train2017",
    alignment: str = "vlsafe/harmlessnss_alignment.jsonl",
    image_fallback: bool = False,
    vlsafe_limit: Whole | None = None,
    seed: int = 0,
) -> Photographs:
    """Join both sources; `image_fallback` gives a request without its image one of `images`."""
    coco = CocoSource(
        root=root,
        images=images,
        captions=captions,
        instances=instances,
        synonyms_file=synonyms_file,
        candidates=candidates,
        limit=limit,
        seed=seed,
    )
    vlsafe = VLSafeSource(
        root=root,
        images=vlsafe_images,
        alignment=alignment,
        image_fallback=image_fallback,
        fallback_images=images,
        limit=vlsafe_limit,
        seed=seed,
    )
    return Photographs(sources={"coco": coco, "vlsafe": vlsafe})
