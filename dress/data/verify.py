"""Check shards on disk against their index and the schema, group by group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from dress.data.shard_index import ShardIndex
from dress.data.shards import INDEX_NAME
from dress.errors import InputError, Reject
from dress.types import Sample


def splits_of(directory: Path) -> dict[str, Path]:
    """Find the folders of shards: `directory` itself, or those inside it, by their name."""
    if (directory / INDEX_NAME).is_file():
        return {directory.name: directory}
    found = {path.parent.name: path.parent for path in sorted(directory.glob(f"*/{INDEX_NAME}"))}
    if not found:
        raise InputError(
            f"{directory} holds no shards (no {INDEX_NAME} in it or one folder below): give the "
            "folder of an artifact of shards, or of one split."
        )
    return found


def read_all(directory: Path) -> Iterator[Sample]:
    """Yield every group in order; raise InputError naming the first that is damaged."""
    index = ShardIndex.open(directory)
    for shard, groups in enumerate(index.groups):
        for sample in index.read_groups(shard, 0, int(groups)):
            if isinstance(sample, Reject):
                raise InputError(f"{sample}: copy or build the shards again.")
            yield sample


def verify(directory: Path, *, on_group: Callable[[], None] = lambda: None) -> int:
    """Return the number of groups; raise InputError at the first fault.

    Checked are the hash and size of every shard, that no shard is left out of the index, that each
    group is where the index says and fits the schema, and that no id occurs twice.
    """
    index = ShardIndex.open(directory)
    index.verify()
    if extra := {path.name for path in directory.glob("*.tar*")} - set(index.files):
        raise InputError(
            f"{directory / min(extra)} is not in {INDEX_NAME}: remove it or build the shards again."
        )
    seen: set[str] = set()
    for sample in read_all(directory):
        if sample.id in seen:
            raise InputError(f"{directory} holds the id {sample.id!r} twice: build it again.")
        seen.add(sample.id)
        on_group()
    return len(seen)
