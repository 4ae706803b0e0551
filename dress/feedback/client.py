"""A client of any OpenAI-compatible chat server that asks for JSON and pays for nothing twice."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from json import JSONDecodeError
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self, TypeVar

from openai import APIError, AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types.chat import ChatCompletion

from dress.errors import InputError, Reject
from dress.feedback.chat_errors import explained
from dress.feedback.endpoint import api_key, check_url, is_loopback
from dress.feedback.reply import BROKEN, NO_JSON, REFUSED, ReplyCache, read_reply, request_key
from dress.settings import AboveZero, Amount, Positive, Whole, checked

_ATTEMPTS = 3  # times that one question is asked until the reply is valid
T = TypeVar("T")


class ChatClient:
    """Ask within `async with client:`; at most `concurrency` requests are in flight.

    The SDK itself repeats what failed for the moment (HTTP 408, 409, 429, 5xx, a lost connection,
    a timeout) up to `max_retries` times. It waits for as long as the server asks, if that is two
    minutes at most; a longer wait ends the request. `temperature`, `max_tokens` and `seed` are not
    sent where they are None. The key is read from the environment and kept by the SDK alone.
    """

    @checked
    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        temperature: Amount | None = 0.0,
        max_tokens: Positive | None = 1024,
        seed: int | None = 0,
        timeout_s: AboveZero = 120.0,
        max_retries: Whole = 6,
        concurrency: Positive = 16,
        cache_dir: Path | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        price_per_million: Mapping[str, float] | None = None,
    ) -> None:
        check_url(base_url)
        api_key(base_url, api_key_env)  # a missing one shows before there is anything to ask
        if price_per_million is not None and set(price_per_million) != {"prompt", "completion"}:
            raise InputError("price_per_million needs prompt and completion, or leave it null.")
        self.base_url, self.model, self.api_key_env = base_url, model, api_key_env
        self.temperature, self.max_tokens, self.seed = temperature, max_tokens, seed
        self.timeout_s, self.max_retries, self.concurrency = timeout_s, max_retries, concurrency
        self.price_per_million = price_per_million
        self._cache = ReplyCache(cache_dir)
        self._counts: Counter[str] = Counter()
        self._asked: dict[str, asyncio.Task[Mapping[str, Any]]] = {}

    async def __aenter__(self) -> Self:
        self._slots = asyncio.Semaphore(self.concurrency)
        self._sdk = AsyncOpenAI(
            base_url=self.base_url,
            api_key=api_key(self.base_url, self.api_key_env),
            timeout=self.timeout_s,
            max_retries=self.max_retries,
            http_client=DefaultAsyncHttpxClient(
                trust_env=not is_loopback(self.base_url),  # no proxy leads to this machine
                event_hooks={"request": [self._count_request]},
            ),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._sdk.close()

    async def complete(
        self, messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return a reply that fits the JSON schema; the same question is sent once.

        Raises Reject where this question got no valid reply, InputError where none will.
        """
        request = self._request(messages, schema)
        key = request_key(request)
        task = self._asked.get(key)
        if task is not None:
            self._counts["cached"] += 1
        elif (reply := self._cache.read(key, schema)) is not None:
            self._counts["cached"] += 1
            return reply
        else:
            task = self._asked[key] = asyncio.create_task(self._ask(key, request, schema))
            task.add_done_callback(lambda _: self._asked.pop(key))
        return await asyncio.shield(task)  # whoever gives up must not end it for the others

    def metrics(self) -> dict[str, float]:
        """Count what was sent (`retries` of it again), answered without a request, and paid."""
        counts = self._counts
        sent = {"requests": counts["requests"], "retries": counts["requests"] - counts["asked"]}
        names = ("cached", "prompt_tokens", "completion_tokens")
        figures = {k: float(n) for k, n in (sent | {name: counts[name] for name in names}).items()}
        if (price := self.price_per_million) is not None:
            paid = (counts[f"{kind}_tokens"] * price[kind] for kind in ("prompt", "completion"))
            figures["cost"] = sum(paid) / 1e6
        return figures

    def _request(
        self, messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]
    ) -> dict[str, Any]:
        form = {"name": "reply", "strict": True, "schema": schema}
        request = {
            "model": self.model,
            "messages": list(messages),
            "response_format": {"type": "json_schema", "json_schema": form},
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }
        return {name: value for name, value in request.items() if value is not None}

    async def _ask(
        self, key: str, request: dict[str, Any], schema: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        async with self._slots:
            self._counts["asked"] += 1
            for attempt in range(_ATTEMPTS):
                # with the same seed the same bad reply might come again
                seed = {"seed": self.seed + attempt} if self.seed is not None else {}
                completion = await self._send(request | seed)
                try:
                    reply = read_reply(completion, schema)
                except Reject as reject:
                    fault = reject
                    if fault.reason == REFUSED:
                        break
                else:
                    await asyncio.to_thread(self._cache.write, key, reply)
                    return reply
        if fault.reason in (NO_JSON, BROKEN):
            ignored = f"{self.base_url} ignores the JSON schema of response_format"
            fault = Reject(fault.reason, detail=f"{ignored}: {fault.detail}")
        raise fault

    async def _send(self, request: dict[str, Any]) -> object:
        try:
            completion = await self._sdk.chat.completions.create(**request)
        except (JSONDecodeError, UnicodeDecodeError):
            return None
        except APIError as error:
            failure = explained(
                error,
                base_url=self.base_url,
                model=self.model,
                api_key_env=self.api_key_env,
                secret=self._sdk.api_key,
            )
        else:
            self._count_tokens(completion)
            return completion
        raise failure  # out here, as the error, its request and their headers are gone

    def _count_tokens(self, completion: object) -> None:
        usage = completion.usage if isinstance(completion, ChatCompletion) else None
        if usage is not None:
            self._counts["prompt_tokens"] += usage.prompt_tokens or 0
            self._counts["completion_tokens"] += usage.completion_tokens or 0

    async def _count_request(self, request: object) -> None:
        self._counts["requests"] += 1


class LoopThread:
    """Run coroutines in a thread of their own while `resource` is open.

    What runs goes on while the caller does something else. Leaving cancels what is left. The
    thread is a daemon, so that a process which is told to stop never waits for it.
    """

    def __init__(self, resource: AbstractAsyncContextManager[Any]) -> None:
        self._resource = resource
        self._started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = Thread(target=self._run, name="requests", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        loop, leave = self._started.result()
        loop.call_soon_threadsafe(leave.set)
        self._thread.join()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        loop, _ = self._started.result()
        return asyncio.run_coroutine_threadsafe(coroutine, loop)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        async with self._resource:
            leave = asyncio.Event()
            self._started.set_result((asyncio.get_running_loop(), leave))
            await leave.wait()


def in_order(client: ChatClient, requests: Iterable[Coroutine[Any, Any, T]]) -> Iterator[T]:
    """Yield results in the order of the requests, which go on while the next one is made.

    At most twice as many are held as may be in flight.
    """
    held: deque[Future[T]] = deque()
    with LoopThread(client) as thread:
        for request in requests:
            held.append(thread.submit(request))
            if len(held) > 2 * client.concurrency:
                yield held.popleft().result()
        while held:
            yield held.popleft().result()
