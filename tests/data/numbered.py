"""A source whose rows are numbers, and a process that converts it slowly until it is killed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dress.data.conversion import converted
from dress.data.rejects import Rejects
from dress.data.sources.source import Part, Source
from dress.data.split import SplitWriter
from dress.errors import InputError, Reject
from dress.types import Dialogue, Sample, Turn

JPEG = b"\xff\xd8\xff"


class Numbered(Source):
    """Row n gives n % 3 samples, each 50th a Reject; `fault`, `bug` and `end` are rows to fail."""

    def __init__(
        self, count: int, *, fault: int = -1, bug: int = -1, end: int = -1, pause: float = 0.0
    ) -> None:
        self.count, self.fault, self.bug, self.end = count, fault, bug, end
        self.pause = pause

    def rows(self, part: Part) -> Iterator[int]:
        return iter(range(self.count))

    def convert(self, part: Part, row: int) -> Iterator[Sample | Reject]:
        if self.pause:
            time.sleep(self.pause)
        if row == self.fault:
            raise InputError(f"row {row} is broken: repair it.")
        if row == self.bug:
            raise KeyError(row)
        if row == self.end:
            os._exit(9)
        if row % 50 == 49:
            yield Reject("broken", key=str(row), where="rows", detail="by design")
        for number in range(row % 3):
            image = JPEG + str(row // 2).encode()
            yield Sample(f"r{row}-{number}", (image,), (Dialogue((Turn(f"What is {row}?"),)),))

    def texts(self) -> Iterator[str]:
        return iter(())

    def inputs(self) -> dict[str, str]:
        return {}


def convert(directory: Path, source: Source, *, workers: int = 0, save_every_s: float = 0.0) -> str:
    """Convert with a journal beside the splits; return what was counted."""
    rejects = Rejects(max_rejects=10_000)
    writer = SplitWriter(
        directory,
        validation_share=0.2,
        rejects=rejects,
        journal=directory / "journal.json",
        save_every_s=save_every_s,
    )
    rows = converted(source, "prompts", workers=workers, first=writer.next_row)
    counts = writer.write(rows)
    return f"{counts} {rejects.state()}"


if __name__ == "__main__":
    print(convert(Path(sys.argv[1]), Numbered(1700, pause=0.001), save_every_s=0.02))
