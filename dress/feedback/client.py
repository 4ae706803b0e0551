"""A client of any OpenAI-compatible chat server, which pays for nothing twice."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from openai import APIError, AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types.chat import ChatCompletion

from dress.errors import Reject
from dress.feedback.chat_errors import explained
from dress.feedback.endpoint import Endpoint, api_key, is_loopback
from dress.feedback.reply import (
    BROKEN,
    NO_JSON,
    REFUSED,
    RESPONSE,
    ReplyCache,
    read_reply,
    read_response,
    request_key,
)

ATTEMPTS = 3  # times that one question is asked until the reply is valid
T = TypeVar("T")
Read = Callable[[object], Mapping[str, Any]]


class ChatClient:
    """Ask within `async with client:`; at most `concurrency` requests are in flight.

    One thread at a time enters it, which takes `alone` before.
    The SDK itself repeats what failed for the moment (HTTP 408, 409, 429, 5xx, a lost connection,
    a timeout) up to `max_retries` times. It waits for as long as the server asks, if that is two
    minutes at most; a longer wait ends the request. Settings that are None are not sent. The key is
    read from the environment and kept by the SDK alone.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.alone = Lock()
        self._cache = ReplyCache(Path(endpoint.cache_dir) if endpoint.cache_dir else None)
        self._counts: Counter[str] = Counter()
        self._asked: dict[str, asyncio.Task[Mapping[str, Any]]] = {}

    async def __aenter__(self) -> Self:
        self._slots = asyncio.Semaphore(self.endpoint.concurrency)
        self._sdk = AsyncOpenAI(
            base_url=self.endpoint.base_url,
            api_key=api_key(self.endpoint.base_url, self.endpoint.api_key_env),
            timeout=self.endpoint.timeout_s,
            max_retries=self.endpoint.max_retries,
            http_client=DefaultAsyncHttpxClient(
                # no proxy leads to this machine
                trust_env=not is_loopback(urlsplit(self.endpoint.base_url).hostname or ""),
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
        self,
        messages: Sequence[Mapping[str, Any]],
        schema: Mapping[str, Any],
        *,
        temperature: float | None,
        max_tokens: int | None,
        seed: int | None,
    ) -> Mapping[str, Any]:
        """Return a reply that fits the JSON schema; the same question is sent once.

        Raises Reject where this question got no valid reply, InputError where none will.
        """
        form = {"name": "reply", "strict": True, "schema": schema}
        request = {
            "messages": list(messages),
            "response_format": {"type": "json_schema", "json_schema": form},
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": seed,
        }
        return await self._once(request, schema, partial(read_reply, schema=schema))

    async def respond(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        temperature: float | None,
        top_p: float | None,
        max_tokens: int | None,
        seed: int | None,
        draw: int = 0,
    ) -> str:
        """Return what the model says next; draws of another number are sent by themselves.

        Raises as `complete` does.
        """
        request = {
            "messages": list(messages),
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "seed": seed,
        }
        reply = await self._once(request, RESPONSE, read_response, draw=draw)
        return reply["response"]

    async def _once(
        self,
        settings: Mapping[str, Any],
        schema: Mapping[str, Any],
        read: Read,
        *,
        draw: int = 0,
    ) -> Mapping[str, Any]:
        """Take the reply from the cache, from a request under way, or from the server."""
        request = {k: v for k, v in settings.items() if v is not None}
        request["model"] = self.endpoint.model
        key = request_key(request | ({"draw": draw} if draw else {}))
        task = self._asked.get(key)
        if task is not None:
            self._counts["cached"] += 1
        elif (reply := self._cache.read(key, schema)) is not None:
            self._counts["cached"] += 1
            return reply
        else:
            task = self._asked[key] = asyncio.create_task(self._ask(key, request, read))
            task.add_done_callback(lambda _: self._asked.pop(key))
        return await asyncio.shield(task)  # whoever gives up must not end it for the others

    def metrics(self) -> dict[str, float]:
        """Count what was sent (`retries` of it again), answered without a request, and paid."""
        counts = self._counts
        sent = {"requests": counts["requests"], "retries": counts["requests"] - counts["asked"]}
        names = ("cached", "prompt_tokens", "completion_tokens")
        figures = {k: float(n) for k, n in (sent | {name: counts[name] for name in names}).items()}
        if (price := self.endpoint.price_per_million) is not None:
            paid = (counts[f"{kind}_tokens"] * price[kind] for kind in ("prompt", "completion"))
            figures["cost"] = sum(paid) / 1e6
        return figures

    async def _ask(self, key: str, request: dict[str, Any], read: Read) -> Mapping[str, Any]:
        async with self._slots:
            self._counts["asked"] += 1
            for attempt in range(ATTEMPTS):
                # with the same seed the same bad reply might come again
                seed = {"seed": request["seed"] + attempt} if "seed" in request else {}
                completion = await self._send(request | seed)
                try:
                    reply = read(completion)
                except Reject as reject:
                    fault = reject
                    if fault.reason == REFUSED:
                        break
                else:
                    await asyncio.to_thread(self._cache.write, key, reply)
                    return reply
        if "response_format" in request and fault.reason in (NO_JSON, BROKEN):
            ignored = f"{self.endpoint.base_url} ignores the JSON schema of response_format"
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
                base_url=self.endpoint.base_url,
                model=self.endpoint.model,
                api_key_env=self.endpoint.api_key_env,
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
    with client.alone, LoopThread(client) as thread:
        for request in requests:
            held.append(thread.submit(request))
            if len(held) > 2 * client.endpoint.concurrency:
                yield held.popleft().result()
        while held:
            yield held.popleft().result()
