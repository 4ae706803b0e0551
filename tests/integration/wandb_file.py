"""Read a .wandb file: LevelDB's log format after a header of 7 bytes, records in protobuf."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, 7
FULL, LAST = 1, 4


def records(path: Path) -> Iterator[Record]:
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    place, pieces = HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:  # what is left of a block is padding
            place += BLOCK - place % BLOCK
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        pieces += data[place + HEADER : place + HEADER + size]
        place += HEADER + size
        if kind in (FULL, LAST):
            yield Record.FromString(pieces)
            pieces = b""


def history(path: Path) -> Iterator[dict[str, str]]:
    """Yield each row that was logged, its values as JSON."""
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            yield {i.key or "/".join(i.nested_key): i.value_json for i in record.history.item}
