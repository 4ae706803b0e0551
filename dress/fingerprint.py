"""Fingerprints of configs and contents, and the names of artifacts made from them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dress.errors import InputError


def fingerprint(
    config: Mapping[str, Any], parents: Mapping[str, str], inputs: Mapping[str, str]
) -> str:
    """Hash what determines an artifact: 64 hex digits, whatever the order of the keys.

    `parents` maps a role to the parent's fingerprint, `inputs` a path to its content hash.
    """
    described = {"config": config, "parents": parents, "inputs": inputs}
    return hashlib.sha256(canonical_json(described).encode()).hexdigest()


def artifact_name(experiment: str, fingerprint: str) -> str:
    """Name an artifact after its experiment and the first 12 digits of its fingerprint."""
    name = f"{experiment}-{fingerprint[:12]}"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise InputError(
            f"experiment name {experiment!r} cannot name a folder: use letters, digits, _, . and -"
        )
    return name


def canonical_json(value: Any) -> str:
    return json.dumps(_canonical(value, ""), sort_keys=True, separators=(",", ":"))


def _canonical(value: Any, key: str) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value + 0.0  # -0.0 becomes 0.0
    if isinstance(value, list | tuple):
        return [_canonical(item, f"{key}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: _canonical(item, f"{key}.{name}") for name, item in value.items()}
    raise InputError(
        f"{key.lstrip('.') or 'value'} is {value!r}, which JSON cannot hold: use a finite number, "
        "a string, a boolean, null, a list, or a mapping with string keys"
    )


def content_hash(path: str | os.PathLike[str]) -> str:
    """Hash the bytes of a file, or the relative names, sizes and bytes of a directory's files."""
    path = Path(path)
    if path.is_file():
        return _file_hash(path)
    if not path.is_dir():
        raise InputError(f"{path} does not exist: correct the path in the config")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listing = [
        [file.relative_to(path).as_posix(), file.stat().st_size, _file_hash(file)] for file in files
    ]
    return hashlib.sha256(canonical_json(listing).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
