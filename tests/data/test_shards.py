from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset

from dress.data.shard_index import ShardIndex
from dress.data.shard_writer import ShardWriter, group_key, offsets_path
from dress.errors import InputError, Reject
from dress.types import Sample
from tests.chat.tiny_chat import make_sample, picture

SAMPLES = [make_sample(number, images=number % 3) for number in range(7)]


def write(directory: Path, samples: list[Sample] = SAMPLES, *, max_groups: int = 3) -> Path:
    with ShardWriter(directory, max_groups=max_groups) as writer:
        for sample in samples:
            writer.write(sample)
    return directory


def read(directory: Path) -> list[Sample | Reject]:
    index = ShardIndex.open(directory)
    return [g for s, n in enumerate(index.groups) for g in index.read_groups(s, 0, int(n))]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    index = ShardIndex.open(write(tmp_path))
    assert read(tmp_path) == SAMPLES
    assert index.groups.tolist() == [3, 3, 1] and len(index) == 7
    assert list(index.read_groups(1, 1, 3)) == SAMPLES[4:6]
    index.verify()


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    files = sorted(path.name for path in first.iterdir())
    assert files == sorted(path.name for path in second.iterdir())
    assert all((first / f).read_bytes() == (second / f).read_bytes() for f in files)
    assert ShardIndex.open(first).fingerprint == ShardIndex.open(second).fingerprint


def test_webdataset_itself_reads_the_shards(tmp_path: Path) -> None:
    path = write(tmp_path, max_groups=10) / "shard-000000.tar"
    rows = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [row["__key__"] for row in rows] == [sample.id for sample in SAMPLES]
    assert json.loads(rows[2]["json"])["id"] == "sample-2"
    assert (rows[2]["jpg"], rows[2]["1.jpg"]) == SAMPLES[2].images


def test_all_formats_and_odd_ids(tmp_path: Path) -> None:
    images = (picture(0, file_format="PNG"), picture(1, file_format="WEBP"), picture(2))
    ids = ["a.b/c d", "../x", "ü" * 60, "x" * 200, "x" * 201, "__meta__", "%41", "A"]
    samples = [replace(SAMPLES[0], id=name, images=images) for name in ids]
    assert read(write(tmp_path, samples)) == samples
    assert len({group_key(name) for name in ids}) == len(ids)


def test_bad_input_is_refused_before_it_is_stored(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.write(SAMPLES[0])
        with pytest.raises(InputError, match="sample-0"):
            writer.write(SAMPLES[0])
        with pytest.raises(InputError, match="neither JPEG"):
            writer.write(replace(SAMPLES[1], images=(b"GIF89a",)))
        with pytest.raises(InputError, match="cannot be stored"):
            writer.write(replace(SAMPLES[1], dialogues=()))
        writer.write(SAMPLES[1])
    assert read(tmp_path) == SAMPLES[:2]
    with pytest.raises(InputError, match="already holds shards"):
        ShardWriter(tmp_path)


def test_an_abandoned_writer_leaves_no_index(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, max_groups=1) as writer:
        writer.write(SAMPLES[0])
        raise KeyboardInterrupt
    assert not list(tmp_path.glob("*.partial"))
    with pytest.raises(InputError, match=r"index\.json does not exist"):
        ShardIndex.open(tmp_path)
    assert read(write(tmp_path)) == SAMPLES  # and can be started again


def test_what_a_state_names_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished shard as well as the open one: a resumed run trusts both after a power cut."""
    synced = set()

    def fsync(descriptor: int, *, real: Callable[[int], None] = os.fsync) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with ShardWriter(tmp_path, max_groups=2, resumable=True) as writer:
        for sample in SAMPLES[:3]:
            writer.write(sample)
        finished = [tmp_path / shard["file"] for shard in writer.state()["shards"]]
        assert len(finished) == 1
        assert {path.stat().st_ino for path in (*finished, *tmp_path.glob("*.partial"))} <= synced


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No sample"), ShardWriter(tmp_path):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"schema": 9, "shards": []}', "has schema 9"),
        ('{"schema": 1, "shards": []}', "lists no shards"),
        (
            '{"schema": 1, "shards": [{"file": "../x", "groups": 1, "bytes": 1, "sha256": ""}]}',
            "wrong ones",
        ),
        (
            '{"schema": 1, "shards": [{"file": "x.tar", "groups": 1, "bytes": 1, "sha256": ""}]}',
            r"x\.tar is missing",
        ),
    ],
)
def test_a_damaged_index_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(InputError, match=message):
        ShardIndex.open(tmp_path)


def test_damaged_shards_and_offsets_are_named(tmp_path: Path) -> None:
    shard = write(tmp_path) / "shard-000001.tar"
    data = shard.read_bytes()
    shard.write_bytes(data[:-100])
    with pytest.raises(InputError, match="cut short"):
        ShardIndex.open(tmp_path)
    shard.write_bytes(data[:-1] + b"x")
    with pytest.raises(InputError, match="was altered"):
        ShardIndex.open(tmp_path).verify()
    shard.write_bytes(data)
    offsets_path(shard).write_bytes(b"no array")
    with pytest.raises(InputError, match=r"offsets\.npy is missing or does not match"):
        ShardIndex.open(tmp_path)


@pytest.mark.parametrize(
    "wrong", [np.array([0, 5]), np.array([0, 9, 5, 20]), np.array([[0.0, 1.0]]), b"no array" * 9]
)
def test_wrong_offsets_reject_the_groups_of_their_shard(
    tmp_path: Path, wrong: np.ndarray | bytes
) -> None:
    path = offsets_path(write(tmp_path) / "shard-000001.tar")
    if isinstance(wrong, bytes):
        path.write_bytes(wrong)
    else:
        np.save(path, wrong)
    groups = read(tmp_path)
    assert [g.id for g in groups if isinstance(g, Sample)] == [SAMPLES[n].id for n in (0, 1, 2, 6)]
    rejects = [group for group in groups if isinstance(group, Reject)]
    assert [(r.reason, r.where) for r in rejects] == [("damaged offsets", str(path))] * 3
    with pytest.raises(InputError, match=r"offsets\.npy.* damaged offsets"):
        ShardIndex.open(tmp_path).verify()


@pytest.mark.parametrize("at", [0, 10, 130, 257, 520, 700])
def test_a_damaged_group_is_a_hole(tmp_path: Path, at: int) -> None:
    shard = write(tmp_path, max_groups=10) / "shard-000000.tar"
    begin = int(np.load(offsets_path(shard))[2])
    data = bytearray(shard.read_bytes())
    data[begin + at : begin + at + 4] = b"\xff\xff\xff\xff"
    shard.write_bytes(data)
    groups = read(tmp_path)
    assert groups[:2] + groups[3:] == SAMPLES[:2] + SAMPLES[3:]
    assert isinstance(groups[2], Reject)
    assert groups[2].where == str(shard) and groups[2].key


def test_what_could_not_be_read_back_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dress.data.shard_writer.MAX_MEMBER_BYTES", len(SAMPLES[1].images[0]) - 1)
    with ShardWriter(tmp_path) as writer:
        with pytest.raises(InputError, match="'sample-1' is too large"):
            writer.write(SAMPLES[1])
        monkeypatch.undo()
        monkeypatch.setattr("dress.data.shard_writer.MAX_GROUP_BYTES", 4000)
        with pytest.raises(InputError, match="'sample-2' is too large"):
            writer.write(SAMPLES[2])
        monkeypatch.undo()
        writer.write(SAMPLES[1])
    assert read(tmp_path) == [SAMPLES[1]]


def test_a_vanished_shard_rejects_its_groups(tmp_path: Path) -> None:
    index = ShardIndex.open(write(tmp_path))
    (tmp_path / index.files[1]).unlink()
    groups = list(index.read_groups(1, 0, 3))
    assert [g.reason for g in groups if isinstance(g, Reject)] == ["unreadable file"] * 3
