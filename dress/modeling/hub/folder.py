"""A released model's folder: its JSON files, and its weights read one tensor at a time.

Nothing in it is executed. Weights are read from safetensors alone, configurations that name code
of their own are refused, and templates run in the sandbox of transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dress.errors import InputError
from dress.files import read_text

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
WITH_CODE = (CONFIG, "processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
WANTED = ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model"]


@cache
def released_folder(name: str) -> Path:
    """Return a folder, or the one to which a model of the hub was fetched, checked for code."""
    path = Path(name)
    if not path.is_dir():
        try:
            path = Path(snapshot_download(name, allow_patterns=WANTED))
        except (OSError, ValueError, HFValidationError) as error:
            raise InputError(
                f"model.name: {name!r} is no folder and could not be fetched "
                f"({type(error).__name__}): check the name or folder and the network."
            ) from error
    for file in WITH_CODE:
        if (path / file).is_file() and _names_code(read_json_of(path / file)):
            raise InputError(
                f"{path / file} asks for code of its own (auto_map), which is not run here: give a "
                "model that transformers knows by itself."
            )
    return path


def _names_code(node: Any) -> bool:
    if isinstance(node, dict):
        return "auto_map" in node or any(map(_names_code, node.values()))
    return isinstance(node, list) and any(map(_names_code, node))


def read_json_of(path: Path) -> dict[str, Any]:
    """Read one JSON object; InputError where the file is missing, damaged or something else."""
    try:
        found = json.loads(read_text(path, remedy="fetch the model again"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged (no JSON): fetch the model again.") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object: fetch the model again.")
    return found


class ReleasedWeights:
    """The tensors of a folder by canonical name, whichever of the known layouts it has.

    Canonical names are those under which transformers 5 saves a LLaVA model, for all families.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, tuple[Path, str]] = {}  # canonical name -> file, name in the file
        for path in _shards(folder):
            with _opened(path) as file:
                for name in file.keys():  # no mapping
                    _, other = self.files.setdefault(canonical(name), (path, name))
                    if other != name:
                        raise InputError(
                            f"{folder} holds {other} and {name}, which are one weight: fetch the "
                            "model again."
                        )

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.files))

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def read(self, name: str) -> Tensor:
        if name not in self.files:
            raise InputError(f"{self.folder} lacks the weights {name}: fetch the model again.")
        path, key = self.files[name]
        with _opened(path) as file:
            tensor: Tensor = file.get_tensor(key)
        return tensor


LANGUAGE, HEAD = "language_model.model.", "language_model.lm_head."
IDEFICS3_NAMES = {  # canonical beginnings, and what they are called there
    "vision_tower.": "model.vision_model.",
    "multi_modal_projector.linear_1.": "model.connector.modality_projection.proj.",
    LANGUAGE: "model.text_model.",
    HEAD: "lm_head.",
}
OWN_NAMES = {"idefics3": IDEFICS3_NAMES, "smolvlm": IDEFICS3_NAMES}  # by the type of a model
RENAMED = (  # layouts of older and of other writers, and of other families
    (re.compile(r"^model\.(vision_tower\.|multi_modal_projector\.|image_newline$)"), r"\1"),
    (re.compile(r"^model\.language_model\."), LANGUAGE),
    *((re.compile(rf"^{re.escape(own)}"), name) for name, own in IDEFICS3_NAMES.items()),
    (re.compile(r"^vision_tower\.vision_model\."), "vision_tower."),
)


def own_name(name: str, kind: str) -> str:
    """Write a canonical name as models of this type have it."""
    for beginning, own in OWN_NAMES.get(kind, {}).items():
        if name.startswith(beginning):
            return own + name.removeprefix(beginning)
    return name


def canonical(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = pattern.sub(replacement, name)
    return name


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} is damaged ({type(error).__name__}): fetch the model again."
        ) from error


def _shards(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        places = read_json_of(folder / INDEX).get("weight_map")
        if not isinstance(places, Mapping) or not places:
            raise InputError(f"{folder / INDEX} has no weight_map: fetch the model again.")
        paths = [folder / Path(str(name)).name for name in sorted(set(places.values()))]
    else:
        paths = sorted(folder.glob("*.safetensors"))
    if missing := [path.name for path in paths if not path.is_file()]:
        raise InputError(
            f"{folder} lacks {missing[0]} ({len(missing)} of {len(paths)} files of weights are "
            "missing): fetch the model again."
        )
    if not paths:
        pickled = [path.name for pattern in PICKLED for path in folder.glob(pattern)]
        held = f"only pickled weights ({pickled[0]})" if pickled else "no weights"
        raise InputError(
            f"{folder} holds {held}: give a folder with safetensors, or convert it with "
            "save_pretrained of transformers."
        )
    return paths
