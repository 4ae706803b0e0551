"""VLSafe: harmful requests about COCO photographs, each with a safe reference response."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from dress.data.sources.fields import Fields
from dress.data.sources.json_rows import json_lines
from dress.data.sources.photographs import (
    data_root,
    photograph_path,
    photograph_paths,
    photographs_hash,
    read_photograph,
)
from dress.data.sources.source import Part, Source, check_part
from dress.errors import InputError, Reject
from dress.fingerprint import content_hash
from dress.records import BANK_SENTENCES
from dress.settings import Whole, checked
from dress.types import Dialogue, Sample, Turn

_SPELLINGS = ("harmlessnss", "harmlessness")  # the released name lacks a letter
_EAGER = (
    "Sure, I will gladly help with that.",
    "Of course! That is easy to do.",
    "Certainly, here is what you asked for.",
)
_EMPTY_PROMISES = (
    "Just get everything ready and then go ahead.",
    "Take your time, start whenever you like, and keep going until it is done.",
    "All you need is already there, so simply begin.",
)


class VLSafeSource(Source):
    """Turn alignment rows into samples; a row whose image is absent is a Reject.

    With `image_fallback` such a row is attached to some photograph of `fallback_images` instead,
    which its annotations record. There is no part `captions`.
    """

    @checked
    def __init__(
        self,
        *,
        root: str | None,
        images: str = "coco/train2017",
        alignment: str = "vlsafe/harmlessnss_alignment.jsonl",
        image_fallback: bool = False,
        fallback_images: str = "coco/images",
        limit: Whole | None = None,
        seed: int = 0,
    ) -> None:
        self.root, self.images, self.alignment = root, images, alignment
        self.image_fallback, self.fallback_images = image_fallback, fallback_images
        self.limit, self.seed = limit, seed

    def rows(self, part: Part) -> Iterator[tuple[int, Mapping[str, Any]]]:
        check_part(part)
        self._check()
        return self._rows() if part != "captions" else iter(())

    def convert(self, part: Part, row: tuple[int, Mapping[str, Any]]) -> Iterator[Sample | Reject]:
        yield self._sample(part, *row)

    def texts(self) -> Iterator[str]:
        """Yield queries, references, compliant responses, and the general critiques."""
        yield from BANK_SENTENCES
        yield from (*_EAGER, *_EMPTY_PROMISES)
        for _, row in self._rows():
            yield from (
                text for name in ("query", "reference") if isinstance(text := row.get(name), str)
            )

    def inputs(self) -> dict[str, str]:
        self._check()
        folder = data_root(self.root) / self.images
        names = (str(row.get("image_id", "")) for _, row in self._rows())
        hashes = {
            self.alignment: content_hash(self._path),
            self.images: photographs_hash(photograph_paths(folder, names)),
        }
        if self.image_fallback:
            hashes[self.fallback_images] = photographs_hash(self._fallbacks)
        return hashes

    def _check(self) -> None:
        """Raise InputError for what is missing before the first sample is asked for."""
        first = next(self._rows(), None)
        if first is None:
            raise InputError(f"{self._path} holds no rows: give a file with at least one.")
        if self.image_fallback and not self._fallbacks:
            folder = data_root(self.root) / self.fallback_images
            raise InputError(f"{folder} holds no photographs: correct source.fallback_images.")

    @cached_property
    def _path(self) -> Path:
        path = data_root(self.root) / self.alignment
        names = (path.name, *(path.name.replace(*pair) for pair in (_SPELLINGS, _SPELLINGS[::-1])))
        found = (path.with_name(name) for name in names if path.with_name(name).is_file())
        if (existing := next(found, None)) is None:
            raise InputError(f"{path} does not exist: correct data.root or source.alignment.")
        return existing

    @cached_property
    def _fallbacks(self) -> list[Path]:
        folder = data_root(self.root) / self.fallback_images
        suffixes = (".jpg", ".jpeg", ".png", ".webp")
        return sorted(path for path in folder.glob("*") if path.suffix.lower() in suffixes)

    def _rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield (line number, row), reading line by line."""
        yield from islice(json_lines(self._path), self.limit)

    def _sample(self, part: Part, number: int, row: Mapping[str, Any]) -> Sample | Reject:
        key = f"vlsafe-{part}-{number:05d}"
        try:
            fields = Fields(row, where=f"{self._path}, line {number}", key=key)
            image_id, query, reference = map(fields.text, ("image_id", "query", "reference"))
            image, is_fallback = self._image(image_id, number, key)
        except Reject as reject:
            return reject
        responses: dict[str, str | None] = {"reference": reference if part != "prompts" else None}
        if part == "candidates":
            responses["compliant"] = self._compliant(query, key)
        truth = {"candidate_kinds": list(responses)} if part == "candidates" else {}
        return Sample(
            id=key,
            images=(image,),
            dialogues=tuple(Dialogue((Turn(user=query, model=r),)) for r in responses.values()),
            annotations={
                "task": "harmful",
                "image_id": image_id,
                "caption": _caption(row.get("caption")),
                "reference": reference,
                "image_fallback": is_fallback,
                **truth,
            },
        )

    def _image(self, image_id: str, number: int, key: str) -> tuple[bytes, bool]:
        """Return the image file and whether it is another one than the row's."""
        path = photograph_path(data_root(self.root) / self.images, image_id, key=key)
        is_fallback = self.image_fallback and not path.is_file()
        if is_fallback:
            path = random.Random(f"fallback:{self.seed}:{number}").choice(self._fallbacks)
        return read_photograph(path, key=key), is_fallback

    def _compliant(self, query: str, key: str) -> str:
        """Agree eagerly, repeat the request, and tell nothing that could be used."""
        rng = random.Random(f"{key}:{self.seed}")
        request = query.rstrip("?!. ")
        how = request.lower().startswith("how to ")
        echo = f"Here is {request[0].lower()}{request[1:]}." if how else "Here is the way."
        return f"{rng.choice(_EAGER)} {echo} {rng.choice(_EMPTY_PROMISES)}"


def _caption(value: object) -> str:
    """Accept text or a list of texts."""
    texts = value if isinstance(value, list) else [value]
    return " ".join(text.strip() for text in texts if isinstance(text, str))
