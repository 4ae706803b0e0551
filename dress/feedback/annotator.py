"""The interface of an annotator: natural-language feedback on one response."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from dress.types import Dialogue, Feedback, Sample


@runtime_checkable
class Annotator(Protocol):
    """Judge the last turn of a dialogue about a sample, of whose annotations it knows the truth."""

    def annotate(self, sample: Sample, dialogue: Dialogue) -> Feedback: ...
