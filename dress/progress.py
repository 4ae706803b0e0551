"""How far a task is: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Self, TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 30.0


class Bar:
    """Count to `total` (unknown where None) on stderr; on a terminal nothing of it remains."""

    def __init__(self, title: str, total: int | None = None) -> None:
        self.title, self.total = title, total
        self.count = 0
        self._note = ""
        self._started = self._shown = time.monotonic()
        self._closing = ExitStack()
        self._tqdm: tqdm | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._closing.enter_context(logging_redirect_tqdm())
            shown = tqdm(
                desc=self.title,
                total=self.total,
                file=sys.stderr,
                mininterval=0.5,
                leave=False,
                dynamic_ncols=True,
            )
            self._tqdm = self._closing.enter_context(shown)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()
        self._tqdm = None

    def update(self, count: int = 1, note: str | None = None) -> None:
        """Add `count`; `note` stands behind the figures until another one replaces it."""
        self.count += count
        self._note = self._note if note is None else note
        if self._tqdm is not None:
            if note is not None:
                self._tqdm.set_postfix_str(note, refresh=False)
            self._tqdm.update(count)
        elif time.monotonic() - self._shown >= SECONDS_BETWEEN_LINES:
            self._shown = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        of = "" if self.total is None else f" of {self.total}"
        note = f", {self._note}" if self._note else ""
        seconds = time.monotonic() - self._started
        return f"{self.title}: {self.count}{of} after {seconds:.0f} s{note}"


def progress(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Pass `items` on, one count each."""
    with Bar(title, total) as shown:
        for item in items:
            yield item
            shown.update()
