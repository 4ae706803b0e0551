"""What the models of one type of transformers have in common, one file per family."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import ProcessorMixin

from dress.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models of one type (`model_type` in config.json).

    `described` reads the nodes `vision` and `projector` from a configuration. With the settings
    `one_tile` the image processor shows a picture as one square, and reports `told` of it; without
    `told` the processor writes nothing but image tokens in a picture's place. `views` says that no
    settings keep it from showing a single picture several times. `newlines` are the tokens of a
    picture behind those of its patches.
    """

    kind: str
    processor: type[ProcessorMixin]
    image_processors: Collection[str]
    described: Callable[[Any, str], dict[str, dict[str, Any]]]
    one_tile: Mapping[str, Any] = field(default_factory=dict)
    told: Mapping[str, Any] | None = None
    views: bool = False
    newlines: int = 0


def choice(key: str, value: Any, choices: Collection[Any], name: str) -> Any:
    """Return a value that is among those which can be read; InputError names the others."""
    if value not in choices:
        read = " or ".join(map(str, choices))
        raise InputError(
            f"{name}: {key} is {value!r}, and only {read} is read here: give another model."
        )
    return value
