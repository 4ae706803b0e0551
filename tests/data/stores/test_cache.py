"""Copies of remote shards: whole or absent, bounded, shared, the longest unused removed first."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from dress.data.shard_index import ShardIndex
from dress.data.shard_writer import ShardWriter
from dress.data.stores.cache import TRIES, CachedStore, ShardCache
from dress.data.stores.http import HttpStore
from dress.data.stream import GroupStream
from dress.errors import InputError, Reject
from tests.chat.tiny_chat import make_sample
from tests.data.stores.test_http import ids
from tests.data.stores.web_server import WebServer
from tests.data.test_stream import COUNT
from tests.disk import files_of_at_most


def entries(shards: Path) -> dict[str, tuple[int, str]]:
    index = json.loads((shards / "index.json").read_text())
    return {s["file"]: (s["bytes"], s["sha256"]) for s in index["shards"]}


def copies(folder: Path) -> set[str]:
    """Name the copies that are there; each must be what its name says."""
    found = set(folder.glob("*.tar"))
    for path in found:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
    assert {path.name for path in folder.iterdir()} - {"fetching.lock"} == {p.name for p in found}
    return {path.stem for path in found}


def test_each_shard_is_fetched_once_and_the_stream_is_the_same(
    shards: Path, tmp_path: Path
) -> None:
    cache = ShardCache(tmp_path / "copies", max_bytes=10**9)
    local = GroupStream(directory=shards, seed=3, window=7)
    with WebServer(shards) as web:
        for _ in range(2):  # the second as a later command would
            remote = GroupStream(directory=web.url, seed=3, window=7, cache=cache)
            assert ids(remote, 0, 2 * COUNT) == ids(local, 0, 2 * COUNT)
        assert {n: web.sent[n] for n in entries(shards)} == {
            name: size for name, (size, _) in entries(shards).items()
        }
    assert copies(cache.directory) == {sha256 for _, sha256 in entries(shards).values()}
    remote = GroupStream(directory=shards, seed=3, window=7, cache=cache)
    assert remote.index.cache is None  # what lies here needs no copy


def store(web: WebServer, shards: Path, cache: ShardCache) -> CachedStore:
    return CachedStore(HttpStore(web.url), shards=entries(shards), cache=cache)


def test_the_bound_holds_and_the_longest_unused_goes_first(shards: Path, tmp_path: Path) -> None:
    known = entries(shards)
    names, sizes = sorted(known), {size for size, _ in known.values()}
    bound = sum(sorted(size for size, _ in known.values())[-2:])
    cache = ShardCache(tmp_path, max_bytes=bound)
    (tmp_path / "mine.txt").write_text("not a copy")
    with WebServer(shards) as web:
        cached = store(web, shards, cache)
        largest = 0
        for name in (names[0], names[1], names[0], names[2], names[0]):
            assert cached.read(name, 512, 600) == (shards / name).read_bytes()[512:600]
            largest = max(largest, sum(path.stat().st_size for path in tmp_path.glob("*.tar")))
        assert min(sizes) < largest <= bound
        assert {path.stem for path in tmp_path.glob("*.tar")} == {
            known[names[0]][1],
            known[names[2]][1],  # not 1: 0 was used after it
        }
        assert web.sent[names[0]] == known[names[0]][0]  # fetched once
    assert (tmp_path / "mine.txt").exists()


def test_a_shard_above_the_bound_is_read_directly(shards: Path, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, max_bytes=1000)
    with WebServer(shards) as web:
        cached = store(web, shards, cache)
        name = "shard-000000.tar"
        assert cached.read(name, 512, 600) == (shards / name).read_bytes()[512:600]
        assert web.sent[name] == 88
    assert copies(tmp_path) == set()


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "empty"])
def test_a_damaged_copy_is_fetched_again(shards: Path, tmp_path: Path, damage: str) -> None:
    cache = ShardCache(tmp_path, max_bytes=10**9)
    name = "shard-000002.tar"
    size, sha256 = entries(shards)[name]
    whole = (shards / name).read_bytes()
    changed = {"flip": b"X" + whole[1:], "cut": whole[:-1], "grow": whole + b"X", "empty": b""}
    with WebServer(shards) as web:
        cached = store(web, shards, cache)
        assert cached.read(name, 0, size) == whole
        (tmp_path / f"{sha256}.tar").write_bytes(changed[damage])
        assert cached.read(name, 0, size) == whole
        assert web.sent[name] == 2 * size
    assert copies(tmp_path) == {sha256}


def test_a_partial_download_is_no_hit(shards: Path, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, max_bytes=10**9)
    name = "shard-000001.tar"
    size, sha256 = entries(shards)[name]
    whole = (shards / name).read_bytes()
    (tmp_path / f"{sha256}.partial").write_bytes(whole[: size // 2])  # of a killed process
    (tmp_path / f"{'0' * 64}.partial").write_bytes(b"x" * 10**6)
    with WebServer(shards, faults=["half"] * 4) as web:
        cached = store(web, shards, cache)
        with pytest.raises(OSError, match="bytes arrived"):
            cached.read(name, 0, 10)
        assert copies(tmp_path) == set()
        assert cached.read(name, 0, size) == whole
    assert copies(tmp_path) == {sha256}


def test_a_shard_that_differs_from_its_hash_is_not_kept(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    for path in shards.iterdir():
        (served / path.name).write_bytes(path.read_bytes())
    name = "shard-000000.tar"
    (served / name).write_bytes((served / name).read_bytes()[:-1] + b"X")
    cache = ShardCache(tmp_path / "copies", max_bytes=10**9)
    with WebServer(served) as web:
        cached = store(web, shards, cache)
        assert cached.read(name, 0, 100) == cached.read(name, 0, 100)
        assert web.sent[name] == entries(shards)[name][0] + 200  # fetched whole only once
    assert copies(tmp_path / "copies") == set()
    ours = [record.message for record in caplog.records if record.name.endswith("stores.cache")]
    assert ours == [f"{web.url}/{name} differs from its hash: not kept"]


def test_a_shard_that_finds_no_room_is_read_where_it_lies(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "shard-000000.tar"
    with WebServer(shards) as web, files_of_at_most(1000):
        cached = store(web, shards, ShardCache(tmp_path, max_bytes=10**9))
        for _ in range(2):
            assert cached.read(name, 512, 600) == (shards / name).read_bytes()[512:600]
        assert web.sent[name] == entries(shards)[name][0] + 2 * 88  # tried once
    assert copies(tmp_path) == set()
    ours = [record.message for record in caplog.records if record.name.endswith("stores.cache")]
    assert ours == [f"{web.url}/{name} is not kept: File too large"]


def test_a_folder_that_keeps_no_time_is_given_up(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a file system that knows no time before 1980, where each copy would look damaged."""
    keep = os.utime
    monkeypatch.setattr(
        os, "utime", lambda path, ns: keep(path, ns=tuple(max(t, 315_532_800 * 10**9) for t in ns))
    )
    name = "shard-000000.tar"
    with WebServer(shards) as web:
        cached = store(web, shards, ShardCache(tmp_path, max_bytes=10**9))
        for _ in range(2):
            assert cached.read(name, 512, 600) == (shards / name).read_bytes()[512:600]
        assert web.sent[name] == TRIES * entries(shards)[name][0] + 2 * 88
    ours = [record.message for record in caplog.records if record.name.endswith("stores.cache")]
    assert ours == [f"{tmp_path} keeps no copy of {name}: not kept"]


def test_a_hash_in_the_index_names_no_other_file(shards: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    for path in shards.iterdir():
        (served / path.name).write_bytes(path.read_bytes())
    index = json.loads((served / "index.json").read_text())
    for shard, name in zip(index["shards"], ("../../x", "/etc/x", "", "A" * 64, "."), strict=True):
        shard["sha256"] = name
    (served / "index.json").write_text(json.dumps(index))
    cache = ShardCache(tmp_path / "a" / "copies", max_bytes=10**9)
    with WebServer(served) as web:
        opened = ShardIndex.open(web.url, cache=cache)
        groups = [group for n in range(5) for group in opened.read_groups(n, 0, 1)]
    assert not any(isinstance(group, Reject) for group in groups)
    assert copies(cache.directory) == set() and not list(tmp_path.rglob("x*"))


def read_all(url: str, folder: Path, seed: int, out: str) -> None:
    cache = ShardCache(folder, max_bytes=10**9)
    Path(out).write_text(json.dumps(ids(GroupStream(directory=url, seed=seed, cache=cache), 0, 40)))


@pytest.mark.slow
def test_processes_share_it(shards: Path, tmp_path: Path) -> None:
    cache = tmp_path / "copies"
    context = multiprocessing.get_context("fork")
    with WebServer(shards) as web:
        processes = [
            context.Process(target=read_all, args=(web.url, cache, 3, str(tmp_path / f"{n}.json")))
            for n in range(3)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0, 0, 0]
        assert {n: web.sent[n] for n in entries(shards)} == {
            name: size for name, (size, _) in entries(shards).items()
        }
    expected = ids(GroupStream(directory=shards, seed=3), 0, 40)
    for number in range(3):
        assert json.loads((tmp_path / f"{number}.json").read_text()) == expected
    assert len(copies(cache)) == 5


def test_a_cache_smaller_than_a_window_is_refused(shards: Path, tmp_path: Path) -> None:
    sizes = sorted(size for size, _ in entries(shards).values())
    with WebServer(shards) as web:
        enough = ShardCache(tmp_path, max_bytes=sum(sizes[-3:]))
        GroupStream(directory=web.url, seed=0, window=8, cache=enough)
        GroupStream(directory=web.url, seed=0, shuffle=False, cache=enough)
        with pytest.raises(InputError, match=r"but the 5 shards of a shuffling window take"):
            GroupStream(directory=web.url, seed=0, window=2048, cache=enough)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/x cannot hold copies .*datamodule.cache.directory"):
        ShardCache(tmp_path / "file" / "x", max_bytes=1)


def test_resuming_fetches_no_shard_but_those_of_the_window(tmp_path: Path) -> None:
    served = tmp_path / "served"
    with ShardWriter(served, max_groups=4) as writer:
        for number in range(40):
            writer.write(make_sample(number))
    cache = ShardCache(tmp_path / "copies", max_bytes=10**9)
    with WebServer(served) as web:
        stream = GroupStream(directory=web.url, seed=0, window=8, cache=cache)
        ids(stream, 24, 8)  # a whole window: two shards of four, as nothing precedes it
        tars = {name for name in web.sent if name.endswith(".tar")}
        assert len(tars) == 2
        assert sum(web.sent[n] for n in tars) == sum(os.stat(served / n).st_size for n in tars)
