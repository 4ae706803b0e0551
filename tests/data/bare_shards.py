"""Directories that an index opens although nothing is in the shards: for questions of order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dress.data.shard_writer import offsets_path


def bare_shards(directory: Path, groups: Sequence[int]) -> Path:
    """Write an index of shards with so many groups each, 512 bytes apart, all zeros."""
    directory.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, count in enumerate(groups):
        shard = directory / f"shard-{number:06d}.tar"
        with shard.open("wb") as file:
            file.truncate(512 * count)
        np.save(offsets_path(shard), 512 * np.arange(count + 1, dtype=np.uint64))
        entries.append({"file": shard.name, "groups": count, "bytes": 512 * count, "sha256": ""})
    index = {"schema": 1, "groups": sum(groups), "shards": entries}
    (directory / "index.json").write_text(json.dumps(index))
    return directory
