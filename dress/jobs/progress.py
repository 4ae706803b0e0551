"""One progress bar for everything that is not Lightning's."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    yield from tqdm(items, desc=title, total=total, file=sys.stderr, mininterval=0.5, leave=False)


def bar(title: str, total: int) -> tqdm:
    return tqdm(desc=title, total=total, file=sys.stderr, mininterval=0.5, leave=False)
