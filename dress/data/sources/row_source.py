"""What sources share whose data is one JSON file of rows beside a folder of images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from dress.data.sources.fields import Fields, image_names
from dress.data.sources.json_rows import Row, json_rows
from dress.data.sources.photographs import (
    data_root,
    photograph_bytes,
    photograph_paths,
    photographs_hash,
)
from dress.data.sources.source import Part, Source, check_part
from dress.errors import InputError, Reject
from dress.fingerprint import content_hash
from dress.records import BANK_SENTENCES
from dress.settings import Whole, checked
from dress.types import Dialogue, Sample

Content = tuple[Sequence[Dialogue], Mapping[str, Any]]  # dialogues and annotations of a row


class RowSource(Source):
    """Read rows one by one; a variant says which images a row names and what it holds.

    `file` is a JSON array or JSON lines, its rows name images below `images`; both are paths below
    `root`. `limit` keeps the first rows.
    """

    name: ClassVar[str]  # begins the ids

    @checked
    def __init__(
        self, *, root: str | None, file: str, images: str, limit: Whole | None = None
    ) -> None:
        self.root, self.file, self.images, self.limit = root, file, images, limit

    def image_names(self, fields: Fields) -> Sequence[str]:
        """Return the images of a row, by LLaVA's field `image` unless a variant has another."""
        return image_names(fields)

    @abstractmethod
    def read(self, part: Part, fields: Fields) -> Content:
        """Return what a row holds for `part`, no dialogue where it has nothing to give."""

    def rows(self, part: Part) -> Iterator[Row]:
        check_part(part)
        self._check()
        return self._rows()

    def convert(self, part: Part, row: Row) -> Iterator[Sample | Reject]:
        number, record = row
        fields = self._fields(number, record, key=f"{self.name}-{part}-{number:07d}")
        try:
            dialogues, annotations = self.read(part, fields)
            names = self.image_names(fields) if dialogues else ()
            images = tuple(photograph_bytes(self._folder, name, key=fields.key) for name in names)
        except Reject as reject:
            yield reject
            return
        if dialogues:
            of_row = {"row_id": str(record.get("id", "")), "image_ids": list(names)}
            yield Sample(fields.key, images, tuple(dialogues), {**annotations, **of_row})

    def texts(self) -> Iterator[str]:
        """Yield what is said in the dialogues and about them, and the general critiques."""
        yield from BANK_SENTENCES
        for number, record in self._rows():
            with suppress(Reject):
                dialogues, _ = self.read("candidates", self._fields(number, record))
                for turn in (turn for dialogue in dialogues for turn in dialogue.turns):
                    yield from (turn.user, turn.model or "")
                    if turn.feedback:
                        yield from (j.critique for j in turn.feedback.judgements.values())

    def inputs(self) -> dict[str, str]:
        self._check()
        paths = photograph_paths(self._folder, self._every_image_name())
        return {self.file: content_hash(self._path), self.images: photographs_hash(paths)}

    def _every_image_name(self) -> Iterator[str]:
        for number, record in self._rows():
            with suppress(Reject):
                yield from self.image_names(self._fields(number, record))

    def _check(self) -> None:
        """Raise InputError for what is missing before the first sample is asked for."""
        if not self._folder.is_dir():
            raise InputError(f"{self._folder} is no directory: correct data.images.")
        if not self._path.is_file():
            raise InputError(f"{self._path} does not exist: correct data.root or data.file.")
        if next(self._rows(), None) is None:
            raise InputError(f"{self._path} holds no rows: give a file with at least one.")

    @property
    def _path(self) -> Path:
        return data_root(self.root) / self.file

    @property
    def _folder(self) -> Path:
        return data_root(self.root) / self.images

    def _rows(self) -> Iterator[Row]:
        return islice(json_rows(self._path), self.limit)

    def _fields(self, number: int, record: Mapping[str, Any], key: str = "") -> Fields:
        return Fields(record, where=f"{self._path}, row {number}", key=key)
