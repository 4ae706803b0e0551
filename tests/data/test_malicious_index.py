"""An index leads to plain tar files beside it alone, whatever the environment says."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dress.data.shard_index import ShardIndex
from dress.data.shard_writer import ShardWriter
from dress.errors import InputError, Reject
from tests.chat.tiny_chat import make_sample
from tests.data.made_shards import JSON, file, rejected, store

ROOT = Path(__file__).resolve().parents[2]


def refusal(directory: Path | str) -> str:
    with pytest.raises(InputError) as error:
        ShardIndex.open(directory)
    assert "\n" not in str(error.value)
    return str(error.value)


def write(directory: Path) -> Path:
    with ShardWriter(directory) as writer:
        writer.write(make_sample(0))
    return directory


def edit(directory: Path, **changes: Any) -> None:
    path = directory / "index.json"
    index = json.loads(path.read_text())
    index["shards"][0] |= changes
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    "name",
    [
        "pipe:touch started",
        "pipe:touch started #.tar",
        "../shard-000000.tar",
        "/etc/passwd",
        "sub/shard-000000.tar",
        "file:shard-000000.tar",
        "http://localhost/shard-000000.tar",
        "shard-{000000..000009}.tar",
        "shard-000000.tar.gz",
        "shard-000000.pkl",
        "shard-000000.tgz",
        "-.tar",
        ".tar",
        "",
    ],
)
def test_only_plain_tar_names_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "shards")
    edit(tmp_path / "shards", file=name)
    assert "lists no shards with groups, or wrong ones" in refusal(tmp_path / "shards")
    assert not list(tmp_path.rglob("started"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pipe:touch started", "does not exist"),
        ("pipe:cat index.json", "does not exist"),
        ("pipe://touch started", "'pipe' is no kind of place for shards"),
        ("file:///etc", "'file' is no kind of place for shards"),
        ("simplecache::http://127.0.0.1/x", "is no kind of place for shards"),
        ("://x", "is no kind of place for shards"),
        ("http://", "is no address of a folder"),
        ("http://127.0.0.1/x\r\nHost: y", "is no address of a folder"),
        ("http://127.0.0.1/x#y", "is no address of a folder"),
        ("s3://Key:Secret@bucket/x", "an address in S3 is s3://BUCKET/FOLDER"),
        ("s3://bucket/x?versionId=1", "an address in S3 is s3://BUCKET/FOLDER"),
    ],
)
def test_no_other_place_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in (said := refusal(name)) and "Secret" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("groups", [10**30, 0, -1, 1e999, float("nan"), None, [1], "x", 10**6])
def test_counts_that_cannot_be(tmp_path: Path, groups: Any) -> None:
    edit(write(tmp_path), groups=groups)
    assert re.search("build (the shards|them) again", refusal(tmp_path))


def test_an_index_nested_too_deeply(tmp_path: Path) -> None:
    (write(tmp_path) / "index.json").write_text("[" * 100_000)
    assert "is damaged (RecursionError" in refusal(tmp_path)


def damaged_offsets(directory: Path) -> bool:
    (group,) = ShardIndex.open(directory).read_groups(0, 0, 1)
    assert isinstance(group, Reject) and "\n" not in str(group)
    assert group.where == str(directory / "shard-000000.offsets.npy")
    return group.reason == "damaged offsets"


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_pickled_offsets_are_not_loaded(tmp_path: Path) -> None:
    write(tmp_path / "shards")
    offsets = np.array([Payload(tmp_path / "started")], dtype=object)
    np.save(tmp_path / "shards" / "shard-000000.offsets.npy", offsets, allow_pickle=True)
    assert damaged_offsets(tmp_path / "shards")
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("shape", ["(1000000000000000,)", "(2,)" * 5000, "(-1,)"])
def test_offsets_that_claim_a_huge_array(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<u8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    data = b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + bytes(16)
    (write(tmp_path) / "shard-000000.offsets.npy").write_bytes(data)
    assert damaged_offsets(tmp_path)


@pytest.mark.parametrize("end", [20_000, 2**62, 2**63 - 1])
def test_offsets_beyond_the_shard(tmp_path: Path, end: int) -> None:
    np.save(write(tmp_path) / "shard-000000.offsets.npy", np.array([0, end], dtype=np.uint64))
    assert damaged_offsets(tmp_path)


def test_a_shard_that_is_listed_twice(tmp_path: Path) -> None:
    path = write(tmp_path) / "index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"shards": index["shards"] * 2}))
    assert "lists shard-000000.tar twice" in refusal(tmp_path)


def test_an_archive_of_arrays_is_no_array(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([0, 1]))
    (write(tmp_path) / "shard-000000.offsets.npy").write_bytes(buffer.getvalue())
    assert damaged_offsets(tmp_path)


READ = """
from pathlib import Path
from dress.errors import Reject
from dress.data.shard_index import ShardIndex
from webdataset.autodecode import unpickle_loads
from webdataset.gopen import gopen_pipe

for attempt in (lambda: gopen_pipe("pipe:touch started"), lambda: unpickle_loads(PICKLE)):
    try:
        attempt()
    except ValueError:
        print("refused")
(group,) = ShardIndex.open(Path("shards")).read_groups(0, 0, 1)
print(group.reason)
"""
PICKLE = b"cos\nsystem\n(S'touch started'\ntR."


@pytest.mark.parametrize(
    "variables",
    [
        {
            "WDS_SECURE": "0",
            "WDS_PYTORCH_WEIGHTS_ONLY": "0",
            "GOPEN_REWRITE": "shard-=pipe:touch started; cat shard-",
            "USE_AIS_FOR": "pipe",
        },
        {"WDS_SECURE": "yes please", "WDS_CACHE_SIZE": "much", "GOPEN_VERBOSE": "x"},
    ],
)
def test_no_variable_loosens_anything(tmp_path: Path, variables: dict[str, str]) -> None:
    (tmp_path / "shards").mkdir()
    store(
        tmp_path / "shards",
        file("a.json", JSON),
        file("a.pkl", PICKLE),
    )
    assert rejected(tmp_path / "shards").reason == "unknown suffix"
    done = subprocess.run(
        [sys.executable, "-c", f"PICKLE = {PICKLE!r}{READ}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["refused", "refused", "unknown suffix"], done.stderr
    assert not (tmp_path / "started").exists()
