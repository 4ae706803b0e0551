"""From a plain specification (conf/model, or an artifact's config.yaml) to a model.

Names are looked up here, never imported: the specification of an artifact is data, not code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerFast

from dress.errors import InputError
from dress.modeling.language import causal_lm
from dress.modeling.lvlm import LVLM, build_lvlm
from dress.modeling.projector import linear_projector, mlp_projector
from dress.modeling.vision import open_clip_tower

PROJECTORS: Mapping[str, Callable[..., nn.Module]] = {
    "linear": linear_projector,
    "mlp": mlp_projector,
}


def build_model(
    spec: Mapping[str, Any], *, tokenizer: PreTrainedTokenizerFast, stored: Collection[str] = ()
) -> LVLM:
    """Build tower, projector and LM; parts in `stored` get their weights later, from a file."""
    vision, language = dict(spec["vision"]), dict(spec["language"])
    for part, settings in (("vision", vision), ("language", language)):
        settings["random_init"] = settings["random_init"] or part in stored
    return build_lvlm(
        vision=open_clip_tower(**vision),
        language=causal_lm(**language, vocab_size=len(tokenizer)),
        projector=_projector(spec["projector"]),
        tokenizer=tokenizer,
    )


def public_base(spec: Mapping[str, Any]) -> dict[str, str | None]:
    """Name the public checkpoint each part began from; None for random weights."""
    vision, language = spec["vision"], spec["language"]
    tower = f"{vision['name']}:{vision['pretrained']}"
    return {
        "vision": None if vision["random_init"] or not vision["pretrained"] else tower,
        "projector": None,
        "language": None if language["random_init"] else language["name"],
    }


def _projector(spec: Mapping[str, Any]) -> Callable[[int, int], nn.Module]:
    settings = dict(spec)
    kind = settings.pop("kind")
    if kind not in PROJECTORS:
        raise InputError(
            f"model.projector.kind is {kind!r}: choose one of {', '.join(PROJECTORS)}."
        )
    return partial(PROJECTORS[kind], **settings)
