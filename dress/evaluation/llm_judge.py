"""A judge that asks a language model behind any OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dress.errors import Reject
from dress.evaluation.benchmark import JudgeRequest
from dress.feedback.client import ChatClient, in_order
from dress.settings import AboveZero, Amount, Positive, Whole, checked


class LLMJudge:
    """Ask about each response once; the settings are those of ChatClient."""

    @checked
    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        temperature: Amount | None = 0.0,
        max_tokens: Positive | None = 1024,
        seed: int | None = 0,
        max_failures: Whole = 0,
        timeout_s: AboveZero = 120.0,
        max_retries: Whole = 6,
        concurrency: Positive = 16,
        cache_dir: str | Path | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        price_per_million: Mapping[str, float] | None = None,
    ) -> None:
        self.max_failures = max_failures
        self.client = ChatClient(
            base_url=base_url,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
            timeout_s=timeout_s,
            max_retries=max_retries,
            concurrency=concurrency,
            cache_dir=Path(cache_dir) if cache_dir else None,
            api_key_env=api_key_env,
            price_per_million=price_per_million,
        )

    def judge(self, requests: Iterable[JudgeRequest]) -> Iterator[Mapping[str, Any] | Reject]:
        """Yield replies in order while later requests are under way; InputError where none will."""
        return in_order(self.client, (self._asked(request) for request in requests))

    def metrics(self) -> dict[str, float]:
        return {f"judge/{name}": value for name, value in self.client.metrics().items()}

    def settings(self) -> dict[str, Any]:
        client = self.client
        return {
            "model": client.model,
            "temperature": client.temperature,
            "max_tokens": client.max_tokens,
            "seed": client.seed,
        }

    async def _asked(self, request: JudgeRequest) -> Mapping[str, Any] | Reject:
        try:
            return await self.client.complete(request.messages, request.schema)
        except Reject as reject:
            return reject
