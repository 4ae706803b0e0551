"""Save what a public checkpoint does not give, and put it back into a freshly built model.

A directory holds one safetensors file per part whose weights are the project's own, the LoRA
adapters on top of it in the order in which they apply, and manifest.json. Where the language model
itself is stored, adapters merged earlier are inside it and only the active one is kept apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dress.distributed import place, whole
from dress.errors import InputError
from dress.files import replacing, write_text
from dress.modeling.four_bit import check_mergeable, is_quantized
from dress.modeling.language import add_lora, lora_settings
from dress.modeling.lvlm import LVLM

FORMAT = 1
MANIFEST = "manifest.json"
STORED_PARTS = ("vision", "projector", "language", "scalar_head")
LORA_SETTINGS = {"r", "alpha", "dropout", "target_modules"}


def save_weights(model: LVLM, directory: str | Path, *, base: Mapping[str, Any]) -> None:
    """Write the parts that differ from their public checkpoint, then the manifest.

    `base` maps vision, projector and language to whatever identifies the public checkpoint that the
    part began from; None (or no entry) marks random weights, which are always stored. All
    ranks call it where the model is sharded, and rank 0 writes.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    parts = [part for part in STORED_PARTS if getattr(model, part) is not None]
    stored = [p for p in parts if base.get(p) is None or p in model.differs]
    files = {}
    for part in stored:
        file = f"{part}.safetensors"
        _save(part_tensors(model, part), folder / file)
        files[file] = {"part": part}
    adapters = [] if "language" in stored else list(model.merged_adapters)
    if isinstance(model.language, PeftModel) and "lora" in model.differs:
        adapters.append((lora_settings(model.language), adapter_tensors(model.language)))
    entries = []
    for i, (settings, tensors) in enumerate(adapters):
        file = f"lora-{i}.safetensors"
        _save(tensors, folder / file)
        entries.append({"file": file, "settings": settings})
    manifest = {
        "format": FORMAT,
        "base": dict(base),
        "files": files,
        "adapters": entries,
        "trained": sorted(model.differs),
    }
    if place()[0] == 0:
        write_text(folder / MANIFEST, json.dumps(manifest, indent=2))


def load_weights(
    model: LVLM,
    directory: str | Path,
    *,
    base: Mapping[str, Any] | None = None,
    merge_adapters: bool = False,
) -> dict[str, Any]:
    """Restore a saved model into a freshly built one and return the manifest.

    The last adapter stays apart, as it was trained, unless `merge_adapters`: then the LM holds all
    of them and a model built with LoRA gets a new adapter. Nothing is merged into weights in
    4 bits, whose adapter goes on. Choose what trains after this.
    """
    folder = Path(directory)
    manifest = _read_manifest(folder)
    _check_base(manifest, base=base, folder=folder)
    for file, entry in manifest["files"].items():
        if getattr(model, entry["part"]) is None:
            raise InputError(f"{folder} holds a reward model: give one that answers.")
        _copy(part_tensors(model, entry["part"]), folder / Path(file).name)
    own = lora_settings(model.language) if isinstance(model.language, PeftModel) else None
    adapters = manifest["adapters"]
    model.differs = set(manifest["trained"])
    if adapters and is_quantized(model.language):
        _restore_adapter(model, adapters, own=own, folder=folder)
        return manifest
    if adapters and isinstance(model.language, PeftModel):
        model.language = model.language.unload()
    model.merged_adapters = []
    for entry in adapters:
        merge_lora(model)
        model.language = add_lora(model.language, **entry["settings"])
        _copy(adapter_tensors(model.language), folder / Path(entry["file"]).name)
    if merge_adapters and adapters:
        merge_lora(model)
        if own is not None:
            model.language = add_lora(model.language, **own)
    model.train(model.training)
    return manifest


def _restore_adapter(
    model: LVLM, adapters: Sequence[Mapping[str, Any]], *, own: Any, folder: Path
) -> None:
    """Fill the adapter on weights in 4 bits, which holds all that was trained, and trains on."""
    if len(adapters) != 1 or adapters[0]["settings"] != own:
        raise InputError(
            f"{folder / MANIFEST}: on weights in 4 bits one adapter trains through all stages: "
            "begin from a model with a single one, and keep its model.language.lora."
        )
    assert isinstance(model.language, PeftModel)
    _copy(adapter_tensors(model.language), folder / Path(adapters[0]["file"]).name)


def merge_lora(model: LVLM) -> None:
    """Add the active adapter to the LM's weights, keeping a copy for the next save."""
    if not isinstance(model.language, PeftModel):
        return
    check_mergeable(model.language)
    tensors = {
        key: tensor.detach().to("cpu", copy=True)
        for key, tensor in adapter_tensors(model.language).items()
    }
    model.merged_adapters.append((lora_settings(model.language), tensors))
    model.language = model.language.merge_and_unload()  # type: ignore[assignment]


def part_tensors(model: LVLM, part: str) -> dict[str, Tensor]:
    """Name the weights of a part, tied ones once; an adapter on the LM changes no name."""
    if part != "language":
        return named_tensors(getattr(model, part))
    language = model.language
    if isinstance(language, PeftModel):
        language = language.get_base_model()  # type: ignore[assignment]
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in named_tensors(language).items()
        if "lora_" not in name
    }


def adapter_tensors(language: PeftModel) -> dict[str, Tensor]:
    """Name the adapter's weights as peft does in its own files."""
    return {
        name.replace(".default", ""): parameter
        for name, parameter in language.named_parameters()
        if "lora_" in name
    }


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Name the weights and the saved buffers of a module, tied ones once."""
    parameters = dict(module.named_parameters())
    aliases = dict(module.named_parameters(remove_duplicate=False))
    state = module.state_dict()
    return parameters | {name: state[name] for name in state if name not in aliases}


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    held = {key: whole(tensor).contiguous() for key, tensor in tensors.items()}
    if place()[0] == 0:
        with replacing(path) as temporary:
            save_file(held, temporary)


def stored_parts(directory: str | Path) -> set[str]:
    """Name the parts of which a saved model holds all weights."""
    return {entry["part"] for entry in _read_manifest(Path(directory))["files"].values()}


def saved_adapters(directory: str | Path) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Return the settings and the tensors of each saved adapter, in their order."""
    folder = Path(directory)
    return [
        (entry["settings"], load_file(folder / Path(entry["file"]).name))
        for entry in _read_manifest(folder)["adapters"]
    ]


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: not a saved model ({type(error).__name__}); give a model's directory."
        ) from error
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT:
        raise InputError(f"{path}: format {version!r:.40} is not {FORMAT}; save the model again.")
    try:
        parts = [entry["part"] for entry in manifest["files"].values()]
        adapters = [set(entry["settings"]) for entry in manifest["adapters"] if entry["file"]]
        sound = isinstance(manifest["base"], dict) and isinstance(manifest["trained"], list)
        sound = sound and set(parts) <= set(STORED_PARTS)
    except (KeyError, TypeError, AttributeError):
        sound, adapters = False, []
    if not sound or any(settings != LORA_SETTINGS for settings in adapters):
        raise InputError(f"{path}: damaged or made by other code; save the model again.")
    return manifest


def _check_base(
    manifest: Mapping[str, Any], *, base: Mapping[str, Any] | None, folder: Path
) -> None:
    stored = {entry["part"] for entry in manifest["files"].values()}
    for part in STORED_PARTS:
        saved = manifest["base"].get(part)
        if base is not None and part not in stored and base.get(part) != saved:
            raise InputError(
                f"{folder / MANIFEST}: {part} began from {saved!r} but the model has "
                f"{base.get(part)!r}; build the model with the former."
            )


def _copy(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Fill `tensors` from a file that must hold exactly the same keys and shapes."""
    try:
        loaded = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); save again.") from error
    for key in sorted(set(tensors) ^ set(loaded)):
        fault = "lacks the" if key in tensors else "has an unknown"
        raise InputError(f"{path}: it {fault} key {key}; build the model that was saved.")
    with torch.no_grad():
        for key, tensor in tensors.items():
            if tensor.shape != loaded[key].shape:
                raise InputError(
                    f"{path}: {key} has shape {list(loaded[key].shape)} but the model needs "
                    f"{list(tensor.shape)}; build the model that was saved."
                )
            tensor.copy_(loaded[key])
