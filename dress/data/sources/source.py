"""The interface of a source: raw rows of one data set to Samples, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol, runtime_checkable

from dress.data.rejects import Reject
from dress.types import Sample

Part = Literal["captions", "instructions", "prompts", "candidates"]
"""captions: image and caption. instructions: answered questions. prompts: questions to be answered
by a model (`Turn.model` is None). candidates: questions with several ready responses each."""


@runtime_checkable
class Source(Protocol):
    """Yield the samples of one part in a fixed order; a row that cannot be used is a Reject."""

    def samples(self, part: Part) -> Iterator[Sample | Reject]: ...

    def texts(self) -> Iterator[str]:
        """Yield texts that a tokenizer may be trained on."""
        ...

    def inputs(self) -> dict[str, str]:
        """Return {path: content hash} of every file the samples depend on."""
        ...
