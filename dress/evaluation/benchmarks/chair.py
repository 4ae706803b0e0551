"""CHAIR: objects that a caption names and the image lacks (Rohrbach et al. 2018, arXiv 1809.02156).

What is there: the image's annotated instances and the objects that its human captions name, in
COCO's files. chair_i = invented mentions / mentions over all captions, chair_s = captions with an
invention / captions; recall = distinct true objects named / objects there, as others report it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from dress.data.overlap import image_key
from dress.data.sources.coco_index import CocoImage, CocoIndex, read_index
from dress.errors import InputError
from dress.evaluation.benchmark import Answered, Example, Labels, Ratios
from dress.evaluation.chair_words import ChairVocabulary
from dress.evaluation.public import PublicBenchmark, Unanswered, defined, released_id
from dress.records import Turn, whole_number
from dress.settings import Positive, checked

_CAPTION_METRICS = "Bleu_1 Bleu_2 Bleu_3 Bleu_4 METEOR CIDEr SPICE ROUGE_L".split()


class ChairBenchmark(PublicBenchmark):
    """Ask for a caption of `limit` images drawn with `seed`, or of all; questions may differ."""

    name = "chair"
    response_fields = ("response", "caption", "text", "answer")
    key_fields = ("image_id",)
    fixed_questions = False

    @checked
    def __init__(
        self,
        *,
        root: str | None = None,
        captions: str = "coco/annotations/captions_val2014.json",
        instances: str = "coco/annotations/instances_val2014.json",
        synonyms: str = "chair/synonyms.txt",
        images: str = "coco/val2014",
        question: str = "Describe this image in detail.",
        limit: Positive | None = None,
        seed: int = 0,
        unanswered: Unanswered = "skip",
    ) -> None:
        super().__init__(root=root, images=images, unanswered=unanswered)
        self.captions, self.instances, self.synonyms = captions, instances, synonyms
        self.question, self.limit, self.seed = question, limit, seed

    def files(self) -> Sequence[str]:
        return [self.captions, self.instances, self.synonyms]

    def read_examples(self) -> Iterator[Example]:
        for category in self._index.categories:
            if category not in self._vocabulary.node_of:
                raise InputError(
                    f"{self.path(self.instances)} has the category {category!r}, which "
                    f"{self.synonyms} lacks: give COCO's own categories."
                )
        photographs = draw_images(self._index.photographs, limit=self.limit, seed=self.seed)
        yield from asked_of_each(photographs, self.question)

    def key(self, row: Mapping[str, Any]) -> str | None:
        """Return the image's id; it may be named by its file, also as another year of COCO does."""
        value = next((row[name] for name in ("image_id", "image") if name in row), None)
        if value is None:
            return None
        name = self._names.get(PurePosixPath(str(value)).name, image_key(value))
        number = whole_number(name)
        return name if number is None else str(number)

    def labels(self, example: Example, turns: Sequence[Turn]) -> Labels:
        there = self._there(example)
        named = self._vocabulary.objects(turns[-1].model or "")
        invented = sum(name not in there for name in named)
        return {
            "chair_i": (float(invented), float(len(named))),
            "chair_s": (float(invented > 0), 1.0),
            "recall": (float(len(there.intersection(named))), float(len(there))),
            "mentions": (float(len(named)), 1.0),
        }

    def official(self, answered: Sequence[Answered]) -> Mapping[str, str]:
        """Give chair.py its captions; the caption metrics that it wants to print are 0 here."""
        none = dict.fromkeys(_CAPTION_METRICS, 0.0)
        told = {
            a.example.id: {"image_id": released_id(a.example.id), "caption": a.response, **none}
            for a in answered
        }
        return {"chair.json": json.dumps({"overall": none, "imgToEval": told}) + "\n"}

    def metrics(self, ratios: Ratios) -> dict[str, Any]:
        return {f"chair/{name}": value for name, value in defined(ratios).items()}

    def _there(self, example: Example) -> set[str]:
        told = (self._vocabulary.objects(text) for text in example.annotations["captions"])
        annotated = (self._vocabulary.node_of[name] for name in example.annotations["objects"])
        return {*annotated, *(name for names in told for name in names)}

    @cached_property
    def _index(self) -> CocoIndex:
        return read_index(self.path(self.captions), self.path(self.instances))

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """The id of each photograph by its file name and by the id itself."""
        photographs = self._index.photographs
        files = {PurePosixPath(p.file_name).name: str(p.id) for p in photographs}
        return files | {str(p.id): str(p.id) for p in photographs}

    @cached_property
    def _vocabulary(self) -> ChairVocabulary:
        return ChairVocabulary.read(self.path(self.synonyms))


def draw_images(
    photographs: Sequence[CocoImage], *, limit: int | None, seed: int
) -> list[CocoImage]:
    """Draw so many photographs, or return all, in an order that the file's does not change."""
    ordered = sorted(photographs, key=lambda p: str(p.id))
    if limit is None or limit >= len(ordered):
        return ordered
    return random.Random(seed).sample(ordered, limit)


def asked_of_each(photographs: Iterable[CocoImage], question: str) -> Iterator[Example]:
    """Ask the same of every photograph; what is known of it stands in the annotations."""
    for photograph in photographs:
        yield Example(
            id=str(photograph.id),
            cluster=str(photograph.id),
            images=(),
            question=question,
            answer=", ".join(photograph.objects),
            annotations={
                "image": photograph.file_name,
                "objects": list(photograph.objects),
                "captions": list(photograph.captions),
            },
        )
