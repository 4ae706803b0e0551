"""Whatever is odd about a group's bytes is a reject with a reason; nothing else is touched."""

from __future__ import annotations

import copy
import gzip
import json
import struct
import tarfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dress.data.rejects import Rejects
from dress.data.shard_index import ShardIndex
from dress.data.shard_writer import ShardWriter
from dress.errors import Reject
from tests.chat.tiny_chat import make_sample, picture
from tests.data.made_shards import (
    JSON,
    RECORD,
    SAMPLE,
    Member,
    file,
    finish,
    only_group,
    rejected,
    special,
    store,
    store_bytes,
)

IMAGE = picture()


def test_a_sound_group_is_accepted(tmp_path: Path) -> None:
    assert only_group(store(tmp_path, file("a.json", JSON), file("a.jpg", IMAGE))) == SAMPLE


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        tarfile.CONTTYPE,
        tarfile.GNUTYPE_SPARSE,
        b"Z",
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.jpg", "a.1.jpg"])
def test_links_devices_and_folders_are_not_followed(tmp_path: Path, kind: bytes, name: str) -> None:
    sound = [file("a.json", JSON), file("a.jpg", IMAGE)]
    members = [special(name, kind), *(m for m in sound if m[0].name != name)]
    assert rejected(store(tmp_path, *members)).reason == "not a plain file"


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_extended_headers_are_not_followed(tmp_path: Path, tar_format: int) -> None:
    long = "a" * 120
    store(tmp_path, file(f"{long}.json", JSON), file(f"{long}.jpg", IMAGE), tar_format=tar_format)
    assert rejected(tmp_path).detail == "an extended header"


def test_a_sparse_file_is_not_blown_up(tmp_path: Path) -> None:
    # 512 stored bytes that say they are 8 GB of zeros
    info = tarfile.TarInfo("a.jpg")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 512
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, 512)
    header[483:495] = b"%011o\0" % (8 * 2**30 - 1)
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    assert tarfile.TarInfo.frombuf(bytes(header), "utf-8", "strict").type == b"S"
    tracemalloc.start()
    reject = rejected(store_bytes(tmp_path, bytes(header) + bytes(512)))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert (reject.reason, reject.detail) == ("not a plain file", "a sparse file")


@pytest.mark.parametrize(
    "name",
    ["/a.json", "../a.json", "d/a.json", "..\\a.json", "d\\a.json", "a", ".json", "\u00e4/a.json"],
)
def test_no_name_leads_elsewhere(tmp_path: Path, name: str) -> None:
    assert rejected(store(tmp_path, file(name, JSON))).reason == "unsafe member name"


@pytest.mark.parametrize(
    "suffix",
    ["pkl", "pickle", "pyd", "pth", "npy", "gif", "svg", "jpg.gz", "JPG", "x.jpg", "1", "cbor"],
)
def test_only_known_suffixes_are_read(tmp_path: Path, suffix: str) -> None:
    members = [file("a.json", JSON), file("a.jpg", IMAGE), file(f"a.{suffix}", b"x")]
    assert rejected(store(tmp_path, *members)).reason == "unknown suffix"


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([file("a.json", JSON)], "invalid record"),  # it says images: 1
        ([file("a.jpg", IMAGE)], "record missing"),
        ([file("a.json", JSON), file("a.1.jpg", IMAGE)], "image missing"),
        ([file("a.json", JSON), file("b.jpg", IMAGE)], "members of two groups"),
        ([file("b.json", JSON), file("b.jpg", IMAGE)], "id differs from member name"),
        ([file("a.json", JSON), file("a.json", JSON)], "member twice"),
        ([file("a.json", JSON), file("a.jpg", IMAGE), file("a.0.png", IMAGE)], "member twice"),
        ([file("a.json", b"{}"), file("a.jpg", IMAGE)], "invalid record"),
    ],
)
def test_missing_and_surplus_members(tmp_path: Path, members: list[Member], reason: str) -> None:
    assert rejected(store(tmp_path, *members)).reason == reason


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, file("a.json", JSON), file("a.jpg", IMAGE))
    monkeypatch.setattr("dress.data.group_bytes.MAX_GROUP_BYTES", 1000)
    assert rejected(tmp_path).reason == "group too large"
    monkeypatch.undo()
    monkeypatch.setattr("dress.data.group_bytes.MAX_MEMBER_BYTES", len(IMAGE) - 1)
    assert rejected(tmp_path).reason == "member too large"


def test_compressed_members_are_not_inflated(tmp_path: Path) -> None:
    shard = store(tmp_path, file("a.json", JSON), file("a.jpg", IMAGE)) / "shard-000000.tar"
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    finish(shard, shard.stat().st_size)
    assert rejected(tmp_path).reason == "damaged tar"


@pytest.mark.parametrize("size", [10**9, 2**40, -512])
def test_a_size_that_lies_is_damage(tmp_path: Path, size: int) -> None:
    info = tarfile.TarInfo("a.json")
    info.size = size
    assert rejected(store_bytes(tmp_path, info.tobuf(tarfile.GNU_FORMAT) + JSON)).reason == (
        "damaged tar"
    )


def test_a_shard_cut_short_while_it_is_read(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        for number in range(4):
            writer.write(make_sample(number))
    index = ShardIndex.open(tmp_path)
    shard = tmp_path / index.files[0]
    shard.write_bytes(shard.read_bytes()[: int(index.offsets(0)[3]) - 300])
    groups = list(index.read_groups(0, 0, 4))
    assert groups[:2] == [make_sample(0), make_sample(1)]
    assert [getattr(group, "reason", None) for group in groups[2:]] == ["truncated tar"] * 2


def changed(path: list[Any], value: Any) -> bytes:
    record = copy.deepcopy(RECORD)
    node: Any = record
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return json.dumps(record).encode()


RATING = ["dialogues", 0, 0, "feedback", "honesty", "rating"]


@pytest.mark.parametrize(
    "record",
    [b"[]", b"null", b'"a"', b"{}", changed(["dialogues"], {}), changed(["images"], "1")]
    + [changed(RATING, value) for value in (0, 5, -1, 3.0, "4", None, True, [4])]
    + [changed(["annotations"], {"x": "HERE"}).replace(b'"HERE"', b"1e999")],
)
def test_records_of_another_shape(tmp_path: Path, record: bytes) -> None:
    store(tmp_path, file("a.json", record), file("a.jpg", IMAGE))
    assert rejected(tmp_path).reason == "invalid record"


@pytest.mark.parametrize(
    "record",
    [b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b"1" * 10_000, JSON + b"{}"]
    + [changed(RATING, "HERE").replace(b'"HERE"', v) for v in (b"NaN", b"Infinity", b"-Infinity")]
    + [
        JSON.replace(b'"id"', b'"id": "b", "id"'),
        JSON.replace(b'"rating"', b'"rating": 1, "rating"'),
    ],
)
def test_records_that_are_not_strict_json(tmp_path: Path, record: bytes) -> None:
    store(tmp_path, file("a.json", record), file("a.jpg", IMAGE))
    assert rejected(tmp_path).reason == "unreadable JSON"


def test_a_key_twice_is_named(tmp_path: Path) -> None:
    store(tmp_path, file("a.json", JSON.replace(b'"rating"', b'"rating": 1, "rating"')))
    assert rejected(tmp_path).detail == "the key 'rating' stands twice"


def test_a_key_twice_among_many_is_found_at_once(tmp_path: Path) -> None:
    many = ", ".join(f'"{number}": 0' for number in range(50_000))
    store(tmp_path, file("a.json", f'{{{many}, "49999": 1}}'.encode()))
    began = time.process_time()
    assert rejected(tmp_path).detail == "the key '49999' stands twice"
    assert time.process_time() - began < 15  # each key against all took a minute


@pytest.mark.parametrize("shown", ["\ud800", "\x1b[2J", "\n", "\u202e", "x" * 10**6])
def test_what_is_said_of_a_record_can_be_printed(tmp_path: Path, shown: str) -> None:
    store(tmp_path, file("a.json", json.dumps(RECORD | {"id": shown, "images": 0}).encode()))
    reject = rejected(tmp_path)
    assert str(reject).encode() and str(reject).isprintable() and len(str(reject)) < 1000
    assert reject.key == "a"  # not what the record says, which may be the same for all


def test_damaged_records_that_share_an_id_count_one_by_one(tmp_path: Path) -> None:
    wrong = json.dumps(RECORD | {"id": "all", "schema": 2}).encode()
    index = ShardIndex.open(store(tmp_path, file("a.json", wrong), file("b.json", wrong), groups=2))
    rejects = Rejects(max_rejects=9)
    for group in index.read_groups(0, 0, 2):
        assert isinstance(group, Reject)
        rejects.add_once(group)
    assert rejects.by_reason == {"invalid record": 2}


@pytest.mark.parametrize(
    "value", [b'"\\ud800"', b'{"\\udfff": 1}', b"1e999", b"[" * 60 + b"]" * 60]
)
def test_what_reads_as_json_and_cannot_be_written(tmp_path: Path, value: bytes) -> None:
    record = changed(["annotations"], {"x": "HERE"}).replace(b'"HERE"', value)
    store(tmp_path, file("a.json", record), file("a.jpg", IMAGE))
    assert rejected(tmp_path).reason == "invalid record"


@pytest.mark.parametrize("name", ["a\n.json", "a\x1b[2J.json", "a\u202e.json"])
def test_what_is_said_of_a_member_can_be_printed(tmp_path: Path, name: str) -> None:
    reject = rejected(store(tmp_path, file(name, b"{")))
    assert reject.reason == "unreadable JSON" and str(reject).isprintable()


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_is_a_reject_or_changes_only_this_group(tmp_path: Path, seed: int) -> None:
    shard = store(tmp_path, file("a.json", JSON), file("a.jpg", IMAGE)) / "shard-000000.tar"
    end = int(np.load(tmp_path / "shard-000000.offsets.npy")[-1])
    rng = np.random.default_rng(seed)
    data = bytearray(shard.read_bytes())
    for place in rng.integers(0, end, 8):
        data[place : place + 4] = struct.pack("<I", int(rng.integers(2**32)))
    shard.write_bytes(data[: shard.stat().st_size])
    finish(shard, end)
    group = only_group(tmp_path)
    assert getattr(group, "id", "a") == "a" and getattr(group, "key", "a")
