"""A judge that asks a language model behind any OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dress.errors import Reject
from dress.evaluation.benchmark import JudgeRequest
from dress.feedback.client import ChatClient, in_order
from dress.feedback.endpoint import JsonEndpoint
from dress.settings import Whole


@dataclass(kw_only=True, eq=False)
class LLMJudge(JsonEndpoint):
    """Ask about each response once."""

    max_failures: Whole = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.client = ChatClient(self)

    def judge(self, requests: Iterable[JudgeRequest]) -> Iterator[Mapping[str, Any] | Reject]:
        """Yield replies in order while later requests are under way; InputError where none will."""
        return in_order(self.client, (self._asked(request) for request in requests))

    def metrics(self) -> dict[str, float]:
        return {f"judge/{name}": value for name, value in self.client.metrics().items()}

    def settings(self) -> dict[str, Any]:
        return {"model": self.model, **self.decoding}

    async def _asked(self, request: JudgeRequest) -> Mapping[str, Any] | Reject:
        try:
            return await self.client.complete(request.messages, request.schema, **self.decoding)
        except Reject as reject:
            return reject
