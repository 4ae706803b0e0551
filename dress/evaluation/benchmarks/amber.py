"""AMBER, discriminative part: yes or no about existence, attributes, relations (arXiv 2311.07397).

As in junyangwang0410/AMBER the answer no is the positive class of precision, recall and F1. The
official script takes the responses Yes and No and nothing else; with `answers: first_word` the
first word counts, in any case. Other responses are wrong and counted as unparsed. The generative
part is amber_generative.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from dress.errors import InputError
from dress.evaluation.benchmark import Answered, Example, Labels, Ratios
from dress.evaluation.public import (
    PublicBenchmark,
    Unanswered,
    as_id,
    defined,
    field,
    first_word,
    json_array,
    prefixed,
    released_id,
    yes_no_labels,
)
from dress.records import Turn
from dress.settings import checked

Answers = Literal["exact", "first_word"]
DIMENSIONS: Mapping[str, tuple[str, ...]] = {  # type of an annotation -> where it counts
    "discriminative-hallucination": ("existence",),
    "discriminative-attribute-state": ("attribute", "state"),
    "discriminative-attribute-number": ("attribute", "number"),
    "discriminative-attribute-action": ("attribute", "action"),
    "discriminative-relation": ("relation",),
    "relation": ("relation",),
}
GENERATIVE = "generative"


class AmberBenchmark(PublicBenchmark):
    """Read questions from `queries` and their truth from `annotations`, joined by id."""

    name = "amber"
    row_fields = ("type",)

    @checked
    def __init__(
        self,
        *,
        root: str | None = None,
        queries: str = "amber/query/query_discriminative.json",
        annotations: str = "amber/annotations.json",
        images: str = "amber/image",
        answers: Answers = "exact",
        unanswered: Unanswered = "error",
    ) -> None:
        super().__init__(root=root, images=images, unanswered=unanswered)
        self.queries, self.annotations, self.answers = queries, annotations, answers

    def files(self) -> Sequence[str]:
        return [self.queries, self.annotations]

    def read_examples(self) -> Iterator[Example]:
        for where, row in self.rows(self.queries):
            name, image = field(row, "id", where), field(row, "image", where)
            if name not in self._truths:
                raise InputError(f"{where} has id {name}, which {self.annotations} lacks.")
            kind, truth = self._truths[name]
            if kind == GENERATIVE:
                continue
            yield Example(
                id=name,
                cluster=image,
                images=(),
                question=field(row, "query", where),
                answer=truth,
                annotations={"image": image, "type": kind},
            )

    @cached_property
    def _truths(self) -> Mapping[str, tuple[str, str]]:
        """Type and answer of each question by its id."""
        truths: dict[str, tuple[str, str]] = {}
        for where, row in self.rows(self.annotations):
            kind, truth = field(row, "type", where), row.get("truth")
            if kind != GENERATIVE and (kind not in DIMENSIONS or truth not in ("yes", "no")):
                raise InputError(f"{where} has no known type and truth: fetch the file again.")
            truths[field(row, "id", where)] = kind, str(truth)
        return truths

    def ignores(self, row: Mapping[str, Any]) -> bool:
        return self._truths.get(as_id(row.get("id")), ("", ""))[0] == GENERATIVE

    def labels(self, example: Example, turns: Sequence[Turn]) -> Labels:
        said = self._read(turns[-1].model or "")
        counts = yes_no_labels(said, example.answer, positive="no")
        labels = {**counts, "unparsed": (float(said is None), 1.0)}
        for dimension in DIMENSIONS[example.annotations["type"]]:
            labels |= prefixed(dimension, counts)
        return labels

    def _read(self, response: str) -> str | None:
        if self.answers == "exact":
            return response.lower() if response in ("Yes", "No") else None
        return first_word(response)

    def metrics(self, ratios: Ratios) -> dict[str, Any]:
        return {f"amber/{name}": value for name, value in defined(ratios).items()}

    def official(self, answered: Sequence[Answered]) -> Mapping[str, str]:
        return {"amber.json": amber_json(answered)}


def amber_json(answered: Sequence[Answered]) -> str:
    """Write what inference.py reads, for either part."""
    return json_array({"id": released_id(a.example.id), "response": a.response} for a in answered)
