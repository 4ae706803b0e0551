"""What people said of images, such as LLaVA-RLHF's image_to_caption.json: facts for a judge."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dress.data.sources.fields import Fields
from dress.data.sources.photographs import data_root
from dress.errors import InputError
from dress.files import read_text
from dress.fingerprint import content_hash


class ImageCaptions:
    """Captions by the names of image files: a JSON object of lists, at `file` below `root`."""

    def __init__(self, root: str | None, file: str) -> None:
        self.root, self.file = root, file

    def of(self, names: Sequence[str], fields: Fields) -> list[str]:
        """Return the captions of all these images; a name that is not there has none."""
        known = [caption for name in names for caption in self._captions.get(name, [])]
        return [fields.as_text(caption, "a caption") for caption in known]

    def inputs(self) -> dict[str, str]:
        return {self.file: content_hash(self._path)}

    @property
    def _path(self) -> Path:
        return data_root(self.root) / self.file

    @cached_property
    def _captions(self) -> Mapping[str, list[Any]]:
        text = read_text(self._path, remedy="correct data.captions")
        try:
            captions = json.loads(text)
        except (ValueError, RecursionError):
            captions = None
        if not isinstance(captions, dict) or not all(
            isinstance(c, list) for c in captions.values()
        ):
            raise InputError(
                f"{self._path} holds no object of lists of captions: give another file."
            )
        return captions
