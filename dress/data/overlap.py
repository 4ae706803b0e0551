"""Images and questions that training data shares with evaluation sets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dress.data.sources.json_rows import json_rows
from dress.errors import InputError
from dress.files import read_text, text_lines
from dress.records import Sample, whole_number

IMAGE_KEYS = ("image", "image_id", "image_ids", "img_path", "file_name")
QUESTION_KEYS = ("query", "question", "prompt", "text")
_COCO_ID = re.compile(r"\d{12}$")


@dataclass(frozen=True)
class EvaluationSet:
    name: str
    images: frozenset[str]
    questions: frozenset[str]


@dataclass
class Overlap:
    """What groups share with one evaluation set."""

    evaluation: EvaluationSet
    shared: Counter[str] = field(default_factory=Counter)
    first: str = ""  # id of the first group

    def add(self, sample: Sample) -> None:
        images = not self.evaluation.images.isdisjoint(_values(sample.annotations, IMAGE_KEYS))
        asked = {question_key(t.user) for d in sample.dialogues for t in d.turns}
        questions = not self.evaluation.questions.isdisjoint(asked)
        self.shared.update(images=images, questions=questions, groups=images or questions)
        if images or questions:
            self.first = self.first or sample.id

    def __str__(self) -> str:
        return (
            f"{self.shared['groups']} groups share something with {self.evaluation.name}: "
            f"{self.shared['images']} an image, {self.shared['questions']} a question, first "
            f"{self.first}"
        )


def overlaps(samples: Iterable[Sample], evaluations: Sequence[EvaluationSet]) -> list[Overlap]:
    """Return what is shared with each set that shares anything."""
    found = [Overlap(evaluation) for evaluation in evaluations]
    for sample in samples:
        for overlap in found:
            overlap.add(sample)
    return [overlap for overlap in found if overlap.shared["groups"]]


def read_evaluation_set(path: Path) -> EvaluationSet:
    """Read rows of JSON, or else lines: an image name or a question, or both and a tab between."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: correct shards.evaluation_sets.")
    if path.suffix in (".json", ".jsonl"):
        rows = [row for _, row in json_rows(path)]
    else:
        lines = text_lines(read_text(path))
        fields = [line.split("\t") for line in lines if line.strip()]
        rows = [{"image": first, "text": (*rest, first)[0]} for first, *rest in fields]
    images = {name for row in rows for name in _values(row, IMAGE_KEYS)}
    questions = {
        question_key(row[key])
        for row in rows
        for key in QUESTION_KEYS
        if isinstance(row.get(key), str)
    }
    if not images and not questions:
        known = ", ".join((*IMAGE_KEYS, *QUESTION_KEYS))
        raise InputError(f"{path} holds no images or questions: its rows need one of {known}.")
    return EvaluationSet(path.name, frozenset(images), frozenset(questions))


def image_key(name: object) -> str:
    """Name an image by its file name without suffix; COCO's by their twelve digits alone."""
    number = whole_number(name)
    stem = Path(str(name)).stem if number is None else f"{number:012d}"
    found = _COCO_ID.search(stem)
    return found[0] if found else stem


def question_key(text: str) -> str:
    return " ".join(text.casefold().split())


def _values(row: Mapping[str, Any], keys: Sequence[str]) -> Iterator[str]:
    for key in keys:
        value = row.get(key)
        for item in value if isinstance(value, list) else [value]:
            if item not in (None, ""):
                yield image_key(item)
