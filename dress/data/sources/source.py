"""The interface of a source: raw rows of one data set to Samples, part by part."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from itertools import chain
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from dress.errors import InputError, Reject
from dress.records import Sample

Part = Literal["captions", "instructions", "prompts", "candidates", "questions"]
"""captions: image and caption. instructions: answered questions. prompts: questions to be answered
by a model (`Turn.model` is None). candidates: questions with several ready responses each.
questions: prompts of a benchmark, held out from all training."""


@runtime_checkable
class Source(Protocol):
    """Rows in a fixed order, and the samples of each; a row that cannot be used is a Reject.

    Going through the rows is cheap, converting them is the work: processes share the rows.
    """

    @abstractmethod
    def rows(self, part: Part) -> Iterator[Any]:
        """Begin the rows of a part; raise InputError here, not later, for what is missing."""

    @abstractmethod
    def convert(self, part: Part, row: Any) -> Iterator[Sample | Reject]: ...

    @abstractmethod
    def texts(self) -> Iterator[str]:
        """Yield texts that a tokenizer may be trained on."""

    @abstractmethod
    def inputs(self) -> dict[str, str]:
        """Return {path: content hash} of every file the samples depend on."""

    def samples(self, part: Part) -> Iterator[Sample | Reject]:
        rows = self.rows(part)
        return chain.from_iterable(self.convert(part, row) for row in rows)


def check_part(part: str) -> None:
    if part not in get_args(Part):
        raise InputError(f"part is {part!r}: choose one of {', '.join(get_args(Part))}.")
