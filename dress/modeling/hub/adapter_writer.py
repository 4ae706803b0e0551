"""Write what LoRA training has changed as a folder for peft on the released model it began from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from dress.errors import InputError
from dress.files import public_name, replacing
from dress.modeling.hub.folder import (
    CONFIG,
    LANGUAGE,
    own_name,
    read_json_of,
    released_folder,
)
from dress.modeling.hub.llava_writer import part_weights
from dress.modeling.hub.weight_names import NEWLINE
from dress.modeling.lvlm import LVLM

ROOT = "base_model.model."
PROJECTORS = {"idefics3": "connector", "smolvlm": "connector"}  # by the type of a model
A, B = ".lora_A.weight", ".lora_B.weight"
Adapter = tuple[Mapping[str, Any], Mapping[str, Tensor]]  # settings, tensors by peft's names


def write_adapter(
    model: LVLM, folder: Path, *, base: str, changed: set[str], adapters: Sequence[Adapter]
) -> None:
    """Write adapter_config.json and adapter_model.safetensors, several adapters as one.

    InputError where more than LoRA and projector has changed.
    """
    if rest := changed - {"projector", "lora"}:
        raise InputError(
            f"export.form=adapter holds LoRA and projector alone, and {min(rest)} was trained too: "
            "give export.form=merged."
        )
    if not adapters:
        raise InputError("export.form=adapter: the model has no LoRA: give export.form=merged.")
    kind = read_json_of(released_folder(base) / CONFIG)["model_type"]
    prefix = model.language.base_model_prefix
    joined, rank = joined_adapters(adapters)
    renamed = {_released(name, prefix, kind): tensor for name, tensor in joined.items()}
    saved = part_weights(model, "projector") if "projector" in changed else {}
    if NEWLINE in saved:
        raise InputError(
            "export.form=adapter holds whole layers, and the token behind each picture is none: "
            "give export.form=merged."
        )
    tensors = renamed | {_module(own_name(name, kind)): tensor for name, tensor in saved.items()}
    targets = sorted(name.removeprefix(ROOT).removesuffix(A) for name in renamed if A in name)
    LoraConfig(
        base_model_name_or_path=public_name(base),
        r=rank,
        lora_alpha=rank,
        target_modules=targets,
        modules_to_save=[PROJECTORS.get(kind, "multi_modal_projector")] if saved else None,
        task_type="CAUSAL_LM",
        inference_mode=True,
    ).save_pretrained(str(folder))
    with replacing(folder / "adapter_model.safetensors") as temporary:
        plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(plain, temporary, metadata={"format": "pt"})


def joined_adapters(adapters: Sequence[Adapter]) -> tuple[dict[str, Tensor], int]:
    """Lay adapters side by side: one of the sum of their ranks, with the scale inside B.

    A module that one of them leaves out has zeros there.
    """
    parts = [{name[: -len(A)] for name in tensors if A in name} for _, tensors in adapters]
    rank = sum(settings["r"] for settings, _ in adapters)
    joined: dict[str, Tensor] = {}
    for module in sorted(set().union(*parts)):
        some = next(t for _, t in adapters if module + A in t)
        down = torch.zeros(rank, some[module + A].shape[1], dtype=some[module + A].dtype)
        up = torch.zeros(some[module + B].shape[0], rank, dtype=some[module + B].dtype)
        begin = 0
        for settings, tensors in adapters:
            end = begin + settings["r"]
            if module + A in tensors:
                down[begin:end] = tensors[module + A]
                up[:, begin:end] = tensors[module + B] * (settings["alpha"] / settings["r"])
            begin = end
        joined |= {module + A: down, module + B: up}
    return joined, rank


def _released(name: str, prefix: str, kind: str) -> str:
    layer = name.removeprefix(ROOT).removeprefix(f"{prefix}.")
    canonical = _module(own_name(f"{LANGUAGE}{layer}", kind))
    return canonical.replace(LANGUAGE, "language_model.")


def _module(name: str) -> str:
    """Name a weight as the loaded model does, which has all but the head under `model`."""
    return f"{ROOT}{name}" if name.startswith("model.") else f"{ROOT}model.{name}"
