"""What LLaVA-RLHF's rows share: conversations, and a file of what people said of the images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dress.data.sources.fields import Fields
from dress.data.sources.photographs import data_root
from dress.data.sources.row_source import RowSource
from dress.errors import InputError
from dress.files import read_text
from dress.fingerprint import content_hash
from dress.settings import Whole, checked


class FactsSource(RowSource):
    """`captions`, a file such as image_to_caption.json, gives `annotations.captions`."""

    @checked
    def __init__(
        self,
        *,
        root: str | None,
        file: str,
        images: str = "train2017",
        captions: str | None = None,
        limit: Whole | None = None,
    ) -> None:
        super().__init__(root=root, file=file, images=images, limit=limit)
        self._captions = ImageCaptions(root, captions) if captions is not None else None

    def inputs(self) -> dict[str, str]:
        return super().inputs() | (self._captions.inputs() if self._captions else {})

    def facts(self, names: Sequence[str], fields: Fields) -> dict[str, list[str]]:
        """Return what is annotated of these images: nothing where there is no such file."""
        return {"captions": self._captions.of(names, fields)} if self._captions else {}


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
