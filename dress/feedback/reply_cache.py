"""Replies on disk, so that nothing is paid for twice: one small JSON file each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dress.errors import Reject
from dress.feedback.reply import fitted
from dress.files import write_text
from dress.fingerprint import canonical_json


def request_key(request: Mapping[str, Any]) -> str:
    """Hash a request, wherever it is sent; images count by the hash of their data URL."""
    return hashlib.sha256(canonical_json(_hashed_images(request)).encode()).hexdigest()


class ReplyCache:
    """Keep replies under `directory/ab/<key>.json`; without a directory keep nothing.

    Several processes and machines may share a directory: a file appears whole or not at all.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory

    def read(self, key: str, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the reply, or None where there is none or it was damaged."""
        if self.directory is None:
            return None
        try:
            reply = json.loads(self._path(self.directory, key).read_bytes())
            return fitted(reply, schema)
        except (FileNotFoundError, ValueError, Reject):
            return None

    def write(self, key: str, reply: Mapping[str, Any]) -> None:
        if self.directory is None:
            return
        path = self._path(self.directory, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(reply, ensure_ascii=False) + "\n")

    def _path(self, directory: Path, key: str) -> Path:
        return directory / key[:2] / f"{key}.json"


def _hashed_images(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("data:"):
        return f"sha256:{hashlib.sha256(value.encode()).hexdigest()}"
    if isinstance(value, Mapping):
        return {name: _hashed_images(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_hashed_images(item) for item in value]
    return value
