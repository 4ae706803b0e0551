"""What a model's specification cannot ask for at once. Plain data: nothing is imported or built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from dress.errors import InputError

PARTS = ("vision", "projector", "language", "lora")
NOT_MERGED = (
    "the language model's weights rest in 4 bits (model.language.quantization=nf4), into which no "
    "adapter can be merged: train with model.language.quantization=null."
)
A_LORA = "model.language.lora='{r: 16, alpha: 32, dropout: 0.0, target_modules: all-linear}'"


def check_trainable(spec: Mapping[str, Any], stage: str) -> None:
    """Raise InputError where a stage trains what is not there, or an adapter serves nothing.

    An adapter may rest in a stage that a later one follows in which it trains.
    """
    trainable, key = spec["trainable"], f"model.trainable.{stage}"
    if stage not in trainable:
        raise InputError(
            f"model.trainable has no {stage}: list the parts that train in this stage."
        )
    parts = trainable[stage]
    if not isinstance(parts, list) or not set(parts) <= set(PARTS):
        raise InputError(f"{key} is {parts!r}: give a list of some of {', '.join(PARTS)}.")
    if spec["language"].get("lora") is None:
        if "lora" in parts:
            raise InputError(
                f"{key} trains lora and there is none: give {A_LORA}, or leave it out."
            )
        return
    if {"language", "lora"} <= set(parts):
        raise InputError(f"{key} trains lora and its base, language: leave one of them out.")
    stages = list(trainable)
    if not any("lora" in trainable[later] for later in stages[stages.index(stage) :]):
        raise InputError(
            f"model.language.lora is set, and neither {stage} nor a later stage trains it: give "
            f"{key} with lora in place of language, or model.language.lora=null."
        )


def check_tokenizer(spec: Mapping[str, Any]) -> None:
    """Raise InputError where released weights would meet a tokenizer trained from the data."""
    language = spec["language"]
    if language["name"] and not language["random_init"] and not spec["tokenizer"]["name"]:
        raise InputError(
            f"model.tokenizer.name is null and the weights of {language['name']} know the tokens "
            f"of their own tokenizer alone: give model.tokenizer.name={language['name']}."
        )


def tower_weights(vision: Mapping[str, Any]) -> str | None:
    """Name the weights that the node of a tower asks for: open_clip's name and tag, or a file."""
    if not vision["pretrained"]:
        return None
    return ":".join(filter(None, (vision["name"], vision["pretrained"])))


def not_from_random(spec: Mapping[str, Any], parts: Sequence[str]) -> str | None:
    """Name the first of the trained parts that does not train whole from random weights."""
    whole = spec.get("name") is not None
    released = {
        "vision": (whole or spec["vision"]["pretrained"]) and not spec["vision"]["random_init"],
        "projector": whole and not spec["random_init"],
        "language": not spec["language"]["random_init"],
        "lora": True,
    }
    return next((part for part in parts if released.get(part)), None)


def check_quantization(spec: Mapping[str, Any], stage: str) -> None:
    """Raise InputError where weights are to rest in 4 bits that are random, or that train."""
    language, key = spec["language"], "model.language.quantization"
    chosen = language.get("quantization")
    if chosen is None:
        return
    if chosen != "nf4":
        raise InputError(f"{key} is {chosen!r}: choose nf4, or null.")
    if "name" in spec:
        raise InputError(
            f"{key}={chosen} is for a language model with a name of its own, and all parts of this "
            f"model are read from model.name: give {key}=null, or a model such as llava_7b."
        )
    if language["random_init"]:
        raise InputError(
            f"{key}={chosen} rounds released weights, and these would be random (init_from=random, "
            f"model.random_init or model.language.random_init): give {key}=null, or no random "
            "weights."
        )
    if language.get("lora") is None or "language" in spec["trainable"][stage]:
        raise InputError(
            f"{key}={chosen} leaves weights that do not train: give {A_LORA} and "
            f"model.trainable.{stage} without language, or {key}=null."
        )
    check_bitsandbytes()


def check_bitsandbytes() -> None:
    """Raise InputError where the package that rounds to 4 bits is missing."""
    if find_spec("bitsandbytes") is None:
        raise InputError(
            "model.language.quantization=nf4 needs a package that is missing: pip install "
            "bitsandbytes."
        )
