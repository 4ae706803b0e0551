"""Shards put together member by member, as no writer of ours would, with an index that fits."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from dress.data.schema import to_json
from dress.data.shard_index import ShardIndex
from dress.data.shard_writer import file_sha256, offsets_path
from dress.errors import Reject
from dress.types import Sample
from tests.chat.tiny_chat import make_sample, picture

SAMPLE = replace(make_sample(0), id="a", images=(picture(),))
RECORD = to_json(SAMPLE)
JSON = json.dumps(RECORD).encode()
Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, data: bytes = b"") -> Member:
    return tarfile.TarInfo(name), data


def special(name: str, kind: bytes) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info, b""


def store(
    directory: Path, *members: Member, tar_format: int = tarfile.USTAR_FORMAT, groups: int = 1
) -> Path:
    """Write members as one shard; the index says that they are `groups` groups of equal size."""
    shard = directory / "shard-000000.tar"
    with tarfile.open(shard, "w", format=tar_format) as tar:
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
        end = tar.offset
    return finish(shard, end, groups=groups)


def finish(shard: Path, end: int, *, groups: int = 1) -> Path:
    offsets = np.linspace(0, end, groups + 1).astype(np.uint64)
    np.save(offsets_path(shard), offsets, allow_pickle=False)
    entry = {
        "file": shard.name,
        "groups": groups,
        "bytes": shard.stat().st_size,
        "sha256": file_sha256(shard),
    }
    (shard.parent / "index.json").write_text(json.dumps({"schema": 1, "shards": [entry]}))
    return shard.parent


def store_bytes(directory: Path, data: bytes) -> Path:
    shard = directory / "shard-000000.tar"
    shard.write_bytes(data)
    return finish(shard, len(data))


def only_group(directory: Path) -> Sample | Reject:
    (group,) = ShardIndex.open(directory).read_groups(0, 0, 1)
    return group


def rejected(directory: Path) -> Reject:
    """Return the reject that the only group is; it names the file and a key."""
    group = only_group(directory)
    assert isinstance(group, Reject)
    assert group.where == str(directory / "shard-000000.tar") and group.key
    return group
