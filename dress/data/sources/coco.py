"""Photographs with human captions and object annotations, in COCO's format."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import cycle, islice
from typing import Any

from dress.data.object_words import SynonymTable, listing, load_synonyms, there_is, with_article
from dress.data.sources.coco_index import CocoImage, CocoIndex, read_index
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
from dress.settings import Positive, Whole, checked
from dress.types import Dialogue, Sample, Turn

CAPTION_REQUESTS = ("Give this picture a short caption.", "Write a caption for this picture.")
DESCRIBE_REQUESTS = (
    "Describe this picture.",
    "What is in this picture?",
    "Tell me what you see here.",
)
LIST_REQUESTS = ("List the objects in this picture.", "Which objects are in this picture?")
_CANDIDATE_KINDS = ("true", "added", "other")
_ADDITIONS = (
    "{caption} I can also see {thing}.",
    "{caption} Next to it I can see {thing}.",
    "{caption} In the background I can see {thing}.",
)
_TRIED = 50  # other photographs looked at for a caption that is wrong here


class CocoSource(Source):
    """Turn captions and instances into samples; the same seed gives the same samples.

    An image gives one sample of `captions` and of `candidates`, and up to three of `instructions`
    and `prompts`: a description and as many existence questions with the answer yes as with no.
    """

    @checked
    def __init__(
        self,
        *,
        root: str | None,
        images: str = "coco/images",
        captions: str = "coco/captions.json",
        instances: str = "coco/instances.json",
        synonyms_file: str | None = None,
        candidates: Positive = 3,
        limit: Whole | None = None,
        seed: int = 0,
    ) -> None:
        self.root, self.images, self.captions, self.instances = root, images, captions, instances
        self.synonyms_file = synonyms_file
        self.candidates, self.limit, self.seed = candidates, limit, seed

    def rows(self, part: Part) -> Iterator[CocoImage]:
        check_part(part)
        return iter(self._index.photographs)

    def convert(self, part: Part, row: CocoImage) -> Iterator[Sample | Reject]:
        key = f"coco-{part}-{row.id}"
        try:
            if not row.captions:
                raise Reject("no caption", key=key, where=self.captions)
            image = photograph_bytes(data_root(self.root) / self.images, row.file_name, key=key)
        except Reject as reject:
            yield reject
            return
        rng = random.Random(f"{key}:{self.seed}")
        for suffix, dialogues, truth in self._groups(part, row, rng):
            about = {
                "image_id": row.id,
                "file_name": row.file_name,
                "objects": list(row.objects),
                "captions": list(row.captions),
            }
            yield Sample(
                id=f"{key}{suffix}",
                images=(image,),
                dialogues=dialogues,
                annotations={**truth, **about},
            )

    def texts(self) -> Iterator[str]:
        """Yield requests, captions, lists of objects, and the general critiques."""
        yield from BANK_SENTENCES
        yield from (*CAPTION_REQUESTS, *DESCRIBE_REQUESTS, *LIST_REQUESTS)
        for category in self._index.categories:
            for there in (True, False):
                yield from (_existence_question(category), _existence_answer(category, there))
        for photograph in self._index.photographs:
            yield from map(_sentence, photograph.captions)
            if photograph.objects:
                yield _object_list(photograph)

    def inputs(self) -> dict[str, str]:
        root, index = data_root(self.root), self._index
        folder = root / self.images
        files = photograph_paths(folder, (photo.file_name for photo in index.photographs))
        return {
            self.captions: content_hash(root / self.captions),
            self.instances: content_hash(root / self.instances),
            self.images: photographs_hash(files),
        }

    @cached_property
    def _index(self) -> CocoIndex:
        root = data_root(self.root)
        if not (root / self.images).is_dir():
            raise InputError(f"{root / self.images} is no directory: correct source.images.")
        return read_index(root / self.captions, root / self.instances, limit=self.limit)

    @cached_property
    def _table(self) -> SynonymTable:
        return load_synonyms(self.synonyms_file).with_names(self._index.categories)

    def _groups(
        self, part: Part, photograph: CocoImage, rng: random.Random
    ) -> Iterator[tuple[str, tuple[Dialogue, ...], Mapping[str, Any]]]:
        """Yield the samples of one photograph: suffix of the id, dialogues, truth."""
        reference = _sentence(rng.choice(photograph.captions))
        if part == "captions":
            captions = map(_sentence, photograph.captions)
            request = rng.choice(CAPTION_REQUESTS)
            yield "", _dialogues(request, captions), {"task": "caption", "reference": reference}
        elif part == "candidates":
            kinds, responses = zip(*self._responses(photograph, rng), strict=True)
            request = rng.choice(DESCRIBE_REQUESTS)
            truth = {"task": "describe", "reference": reference}
            yield "", _dialogues(request, responses), truth | {"candidate_kinds": list(kinds)}
        else:
            yield from self._questions(part, photograph, reference, rng)

    def _questions(
        self, part: Part, photograph: CocoImage, reference: str, rng: random.Random
    ) -> Iterator[tuple[str, tuple[Dialogue, ...], Mapping[str, Any]]]:
        requests: Sequence[str] = DESCRIBE_REQUESTS
        if part == "instructions" and photograph.objects and rng.random() < 0.5:
            requests, reference = LIST_REQUESTS, _object_list(photograph)
        asked = [(rng.choice(requests), reference, {"task": "describe"})]
        absent = self._absent(photograph)
        if photograph.objects and absent:
            for category, there in (
                (rng.choice(photograph.objects), True),
                (rng.choice(absent), False),
            ):
                about = {"task": "existence", "about": category, "answer": "yes" if there else "no"}
                asked.append(
                    (_existence_question(category), _existence_answer(category, there), about)
                )
        for number, (question, answer, truth) in enumerate(asked):
            response = answer if part == "instructions" else None
            yield (
                f"-{number}",
                _dialogues(question, [response]),
                {**truth, "reference": answer},
            )

    def _responses(self, photograph: CocoImage, rng: random.Random) -> Iterator[tuple[str, str]]:
        """Yield (kind, response), the kinds in turn; a lone photograph has no `other`."""
        captions = rng.sample(photograph.captions, len(photograph.captions))
        own = cycle(map(_sentence, captions))
        absent = self._absent(photograph) or sorted(
            set(self._table.categories) - self._present(photograph)
        )
        alone = len(self._index.photographs) == 1
        kinds = _CANDIDATE_KINDS[:2] if alone else _CANDIDATE_KINDS
        for kind in islice(cycle(kinds), self.candidates):
            if kind == "true":
                yield kind, next(own)
            elif kind == "added":
                thing = with_article(rng.choice(absent))
                yield kind, rng.choice(_ADDITIONS).format(caption=next(own), thing=thing)
            else:
                yield kind, _sentence(self._other_caption(photograph, rng))

    def _other_caption(self, photograph: CocoImage, rng: random.Random) -> str:
        """A caption of another photograph, if possible one that names something not in this one."""
        photographs, present = self._index.photographs, self._present(photograph)
        captions = [
            rng.choice(other.captions)
            for other in rng.sample(photographs, min(_TRIED, len(photographs)))
            if other is not photograph and other.captions
        ]
        wrong = (text for text in captions if self._table.named(text) - present)
        return next(wrong, captions[0] if captions else "Nothing can be seen.")

    def _present(self, photograph: CocoImage) -> frozenset[str]:
        """The objects annotated or named by a human."""
        return self._table.present(photograph.objects, photograph.captions)

    def _absent(self, photograph: CocoImage) -> list[str]:
        present = self._present(photograph)
        return [
            name for name in self._index.categories if self._table.canonical(name) not in present
        ]


def _dialogues(
    request: str, responses: Iterator[str] | Sequence[str | None]
) -> tuple[Dialogue, ...]:
    return tuple(Dialogue((Turn(user=request, model=response),)) for response in responses)


def _sentence(caption: str) -> str:
    caption = caption.strip()
    return caption[:1].upper() + caption[1:] + ("" if caption.endswith((".", "!", "?")) else ".")


def _object_list(photograph: CocoImage) -> str:
    return f"The picture shows {listing(photograph.objects)}."


def _existence_question(category: str) -> str:
    verb, _, thing = there_is(category).removeprefix("there ").partition(" ")
    return f"{verb.capitalize()} there {thing} in the picture?"


def _existence_answer(category: str, there: bool) -> str:
    answer = "Yes" if there else "No"
    return f"{answer}, {there_is(category, absent=not there)} in the picture."
