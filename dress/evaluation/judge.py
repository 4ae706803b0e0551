"""The interface of a judge: one reply per request, JSON of the form that the request asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dress.data.rejects import Reject


@dataclass(frozen=True)
class JudgeRequest:
    """Chat messages and the strict JSON schema of the reply; `prompt` is what all items share."""

    messages: Sequence[Mapping[str, Any]]
    schema: Mapping[str, Any]
    prompt: str


class Judge(Protocol):
    max_failures: int

    def judge(self, requests: Iterable[JudgeRequest]) -> Iterator[Mapping[str, Any] | Reject]:
        """Yield a reply per request, in order; a Reject where none was valid."""
        ...

    def metrics(self) -> dict[str, float]: ...

    def settings(self) -> dict[str, Any]:
        """Return what identifies the judge and can change its replies."""
        ...
