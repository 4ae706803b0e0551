"""What a job leaves to the tower's weights and to the tokenizer, looked up before it is named.

Fingerprints and artifacts hold what was found, so that another version of a library changes none.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from dress.errors import InputError
from dress.jobs.job import Job


def resolved_model(job: Job) -> dict[str, Any]:
    """Return the node `model`, a named tower with its preprocessing and activation.

    What the node of a released model leaves to its files is read from them. A language model that
    is not quantized says nothing of it, like those of artifacts from before there was the key.
    """
    model = job.node("model")
    if model["language"].get("quantization") is None:
        model["language"].pop("quantization", None)
    if "name" in model:
        return _completed(model)
    weights = model["vision"].get("pretrained")
    if weights and Path(weights).is_file():  # so that it is found from every folder
        model["vision"] |= {"pretrained": str(Path(weights).resolve())}
    if not model["vision"]["name"]:
        return model
    from dress.modeling.tower_settings import resolved_tower  # imports torch

    return model | {"vision": resolved_tower(model["vision"])}


def _completed(model: dict[str, Any]) -> dict[str, Any]:
    if model["name"] is None:
        raise InputError("model.name is null: give model.name=<folder, or name on the hub>.")
    from dress.modeling.hub.released import described  # imports torch

    if Path(model["name"]).is_dir():  # so that it is found from every folder
        model |= {"name": str(Path(model["name"]).resolve())}
    one_tile = model.pop("one_tile", False)  # the settings of the image processor say it as well
    for part, found in described(model["name"], one_tile=one_tile).items():
        missing = {key: value for key, value in found.items() if model[part].get(key) is None}
        model[part] = model[part] | missing
    return model


def resolved_template(job: Job) -> dict[str, Any]:
    """Return the node `template` with the text of its begin token, no key where there is none."""
    template, name = job.node("template"), job.cfg.model.tokenizer.name
    if "user" not in template:
        template = _released_pieces(job.cfg.model.get("name")) | template
    begin = template.pop("begin", "auto")
    if begin == "auto":
        begin = _begin_of(name, template["system"]) if name else ""
    return template | ({"begin": begin} if begin else {})


def _released_pieces(name: str | None) -> dict[str, Any]:
    if name is None:
        raise InputError(
            "template=released reads the chat template of model.name: give model=llava_hf "
            "model.name=<folder>, or another template."
        )
    from dress.modeling.hub.released import released_prompt  # imports torch

    return released_prompt(name)


@cache
def _begin_of(name: str, system: str) -> str:
    from dress.chat.processor import begin_text  # imports torch
    from dress.modeling.tokenizer import load_tokenizer

    return begin_text(load_tokenizer(name), system=system)
