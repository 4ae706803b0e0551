"""What the weights of an open_clip tower decide: its preprocessing and activation."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip

from dress.chat.images import Resize
from dress.errors import InputError

LIST_NAMES = "python -c 'import open_clip; print(open_clip.list_models())'"
RESIZE: Mapping[str, Resize] = {"shortest": "crop", "squash": "squash"}  # by open_clip's names


def resolved_tower(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what the settings of a named tower leave to its weights."""
    name, pretrained = settings["name"], settings["pretrained"]
    if name is None:
        return dict(settings)
    check_name(name, pretrained=pretrained, random_init=settings["random_init"])
    own = trained_with(name, pretrained)
    return {**settings, **{key: v for key, v in own.items() if settings.get(key) is None}}


def trained_with(name: str | None, pretrained: str | None) -> dict[str, Any]:
    """Return the preprocessing and activation of an open_clip name and tag, by its own table.

    Weights from a file have open_clip's defaults; a tower without a name squashes.
    """
    tag = tag_of(name, pretrained)
    shape = open_clip.get_model_config(name) or {} if name else {}
    return {
        "resize": RESIZE[tag.get("resize_mode", "shortest")] if name else "squash",
        "interpolation": tag.get("interpolation", "bicubic"),
        "quick_gelu": bool(shape.get("quick_gelu") or tag.get("quick_gelu")),
    }


def tag_of(name: str | None, pretrained: str | None) -> Mapping[str, Any]:
    return open_clip.get_pretrained_cfg(name, pretrained) if name and pretrained else {}


def check_name(name: str, *, pretrained: str | None, random_init: bool) -> None:
    if name not in open_clip.list_models():
        close = difflib.get_close_matches(name, open_clip.list_models(), n=5, cutoff=0.3)
        raise InputError(
            f"model.vision.name: open_clip has no model {name!r}; close: {', '.join(close)} "
            f"(all of them: {LIST_NAMES})."
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is None and not random_init:
        raise InputError(
            f"model.vision.pretrained: choose one of {tags} for {name}, or set random_init=true."
        )
    if pretrained is not None and pretrained not in tags and not Path(pretrained).is_file():
        raise InputError(
            f"model.vision.pretrained: {name} has no weights {pretrained!r}; it has {tags}."
        )
