"""Read an artifact's own files as plain data, believing nothing in them, and write its config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from dress.errors import InputError
from dress.files import write_text
from dress.targets import foreign_targets, recorded

MARKER, CONFIG, LINEAGE = "COMPLETE", "config.yaml", "lineage.json"
MAX_TEXT = 64 * 2**20  # bytes of the marker, the lineage or the metrics; each file is a line
MAX_CONFIG = 2**20
_NAMES = ("name", "kind", "fingerprint")


def read_artifact(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return config and lineage of a finished artifact; raise InputError where they are not sound.

    A file that is missing or of another size counts as damage, a `_target_` outside of our own
    packages as a foreign artifact: a config is data and must never lead to other code.
    """
    marker = _mapping(path / MARKER)
    config = _mapping(path / CONFIG)
    lineage = _mapping(path / LINEAGE)
    if not all(isinstance(lineage.get(name), str) for name in _NAMES):
        raise _damaged(path / LINEAGE, f"it lacks {' or '.join(_NAMES)}")
    for target in foreign_targets(config):
        raise InputError(
            f"{path / CONFIG} names the foreign code {target[:80]!r}: use artifacts that this "
            "project has made."
        )
    _check_sizes(path, marker.get("files"))
    return config, lineage


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write what was built; classes that a reader may not have become names."""
    write_text(path / CONFIG, yaml.safe_dump(recorded(config), sort_keys=False))


def read_metrics(path: Path) -> dict[str, float]:
    """Return the figures of an artifact, none where it has no such file."""
    return dict(_mapping(path)) if path.is_file() else {}


def _mapping(path: Path) -> Mapping[str, Any]:
    """Parse one JSON or YAML file that must hold an object."""
    is_config = path.name == CONFIG
    try:
        if path.stat().st_size > (MAX_CONFIG if is_config else MAX_TEXT):
            raise _damaged(path, "it is too large")
        text = path.read_text(encoding="utf-8")
        value = yaml.safe_load(text) if is_config else json.loads(text)
    except yaml.YAMLError as error:
        raise _damaged(path, getattr(error, "problem", None) or type(error).__name__) from None
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, " ".join(str(error).split())) from None
    if not isinstance(value, Mapping):
        raise _damaged(path, "it holds no object")
    return value


def _check_sizes(path: Path, sizes: Any) -> None:
    if not isinstance(sizes, Mapping):
        raise _damaged(path / MARKER, "it lists no files")
    for name, size in sizes.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise _damaged(path / MARKER, f"{name[:80]!r} leads out of the artifact")
        file = path / name
        found = file.stat().st_size if file.is_file() else "no"
        if found != size:
            raise InputError(f"{file} has {found} bytes, not {size}: copy or build it again")


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path} is damaged ({why[:200]}): copy or build it again")
