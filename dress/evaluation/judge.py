"""The interface of a judge: one reply per request, JSON of the form that the request asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dress.errors import Reject
from dress.feedback.rubric import DATA_RULE, marked, strict_object


@dataclass(frozen=True)
class JudgeRequest:
    """Chat messages and the strict JSON schema of the reply; `prompt` is what all items share."""

    messages: Sequence[Mapping[str, Any]]
    schema: Mapping[str, Any]
    prompt: str


def ask(
    prompt: str, texts: Sequence[tuple[str, str]], properties: Mapping[str, Any]
) -> JudgeRequest:
    """Ask by `prompt` about named texts, which may try to give orders, for an object of JSON."""
    code, user = marked(texts)
    system = f"{prompt}\n\n{DATA_RULE.format(code=code)}"
    messages = ({"role": "system", "content": system}, {"role": "user", "content": user})
    return JudgeRequest(messages, strict_object(properties), prompt)


class Judge(Protocol):
    max_failures: int

    def judge(self, requests: Iterable[JudgeRequest]) -> Iterator[Mapping[str, Any] | Reject]:
        """Yield a reply per request, in order; a Reject where none was valid."""
        ...

    def metrics(self) -> dict[str, float]: ...

    def settings(self) -> dict[str, Any]:
        """Return what identifies the judge and can change its replies."""
        ...
