"""Coroutines for callers that are not asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from threading import Thread
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


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
