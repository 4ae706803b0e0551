"""Every way in which shards can be damaged is found and named."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from dress.data.shard_index import ShardIndex, splits_of, verify
from dress.data.shard_writer import ShardWriter, file_sha256
from dress.errors import InputError
from dress.types import Dialogue, Sample, Turn
from tests.data.coco_files import photograph


def write(directory: Path, count: int = 5, first: int = 0) -> Path:
    with ShardWriter(directory, max_groups=2) as writer:
        for number in range(first, first + count):
            turn = Turn(f"What is {number}?", "It.")
            writer.write(Sample(f"s{number}", (photograph(number),), (Dialogue((turn,)),)))
    return directory


def test_whole_shards_are_counted(tmp_path: Path) -> None:
    assert verify(write(tmp_path / "train")) == 5
    write(tmp_path / "validation", 1)
    assert splits_of(tmp_path) == {s: tmp_path / s for s in ("train", "validation")}
    assert splits_of(tmp_path / "train") == {"train": tmp_path / "train"}
    with pytest.raises(InputError, match="holds no shards"):
        splits_of(tmp_path / "elsewhere")


def flip(directory: Path) -> str:
    path = directory / "shard-000001.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    return "shard-000001.tar was altered"


def cut(directory: Path) -> str:
    path = directory / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:-1])
    return "shard-000001.tar is missing or cut short"


def add_a_shard(directory: Path) -> str:
    (directory / "shard-000009.tar").write_bytes(b"")
    return "shard-000009.tar is not in index.json"


def reindex(directory: Path) -> None:
    """Make the index agree with the shards as they are now."""
    path = directory / "index.json"
    index = json.loads(path.read_text())
    for entry in index["shards"]:
        shard = directory / entry["file"]
        entry["sha256"], entry["bytes"] = file_sha256(shard), shard.stat().st_size
    path.write_text(json.dumps(index))


def rewrite(directory: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Write the first shard again with changed members of the same length."""
    path, buffer = directory / "shard-000000.tar", BytesIO()
    with (
        tarfile.open(path) as old,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for member in old:
            file = old.extractfile(member)
            assert file is not None
            data = change(member.name, file.read())
            assert len(data) == member.size
            new.addfile(member, BytesIO(data))
    path.write_bytes(buffer.getvalue())
    reindex(directory)


def break_the_schema(directory: Path) -> str:
    def change(name: str, data: bytes) -> bytes:
        return data.replace(b'"user"', b'"uzer"') if name == "s1.json" else data

    rewrite(directory, change)
    return r"shard-000000.tar, key s1: invalid record \(dialogues\[0\]\[0\] lacks 'user'\)"


def rename_a_group(directory: Path) -> str:
    rewrite(directory, lambda name, data: data.replace(b'"s1"', b'"s7"'))
    return "key s1: id differs from member name"


def shift_an_offset(directory: Path) -> str:
    import numpy as np

    path = directory / "shard-000000.offsets.npy"
    offsets = np.load(path, allow_pickle=False)
    offsets[1] += 512
    np.save(path, offsets, allow_pickle=False)
    return "shard-000000.tar, key"


def repeat_a_shard(directory: Path) -> str:
    for suffix in ("tar", "offsets.npy"):
        data = (directory / f"shard-000000.{suffix}").read_bytes()
        (directory / f"shard-000001.{suffix}").write_bytes(data)
    reindex(directory)
    return "holds the id 's0' twice"


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        cut,
        add_a_shard,
        break_the_schema,
        rename_a_group,
        shift_an_offset,
        repeat_a_shard,
    ],
)
def test_a_fault_is_one_sentence(tmp_path: Path, damage: Callable[[Path], str]) -> None:
    directory = write(tmp_path / "train")
    fault = damage(directory)
    with pytest.raises(InputError, match=fault) as raised:
        verify(directory)
    assert "\n" not in str(raised.value)


def test_what_was_repaired_is_whole_again(tmp_path: Path) -> None:
    directory = write(tmp_path / "train")
    rewrite(directory, lambda name, data: data)
    assert verify(directory) == len(ShardIndex.open(directory)) == 5
