"""Shards behind a real web server: the same stream as on disk, whatever goes wrong for a moment."""

from __future__ import annotations

import errno
import logging
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from dress.data.reading import take_retries
from dress.data.rejects import Rejects
from dress.data.shard_index import ShardIndex
from dress.data.stores import http
from dress.data.stream import GroupStream, StepLoader
from dress.errors import InputError, Reject
from dress.types import Sample
from tests.data.stores.web_server import Fault, WebServer
from tests.data.test_stream import COUNT, make_steps


def ids(stream: GroupStream, start: int, number: int) -> list[str]:
    groups = [group for _, group in islice(stream.read(start), number)]
    return [group.id if isinstance(group, Sample) else str(group) for group in groups]


def refusal(location: str) -> str:
    with pytest.raises(InputError) as error:
        ShardIndex.open(location)
    assert "\n" not in str(error.value) and error.value.__cause__ is None
    return str(error.value)


def test_the_stream_is_the_one_on_disk(shards: Path) -> None:
    with WebServer(shards) as web:
        local = GroupStream(directory=shards, seed=3, window=7)
        remote = GroupStream(directory=f"{web.url}/", seed=3, window=7)
        assert ids(remote, 0, 2 * COUNT) == ids(local, 0, 2 * COUNT)
        assert remote.where(4) == f"{web.url}/{Path(local.where(4)).name}"
        assert remote.index.fingerprint == local.index.fingerprint
        remote.index.verify()
    assert take_retries() == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_worker_processes_have_connections_of_their_own(shards: Path, workers: int) -> None:
    def steps(place: str | Path) -> list[tuple[str, ...]]:
        stream = GroupStream(directory=place, seed=0)
        stream.fetch(0)  # this process's connections are open
        loader = StepLoader(
            steps=make_steps(stream, stop=COUNT), rejects=Rejects(), num_workers=workers
        )
        return [batch.group_ids for batches in loader for batch in batches]

    with WebServer(shards) as web:
        assert steps(web.url) == steps(shards)


def test_resuming_reads_the_groups_of_its_step_and_nothing_before(shards: Path) -> None:
    with WebServer(shards) as web:
        stream = GroupStream(directory=web.url, seed=3, window=7)
        index = stream.index
        web.sent.clear()
        web.seen.clear()
        (step,) = islice(make_steps(stream, start_step=4), 1)
        assert step.groups == 4 and not step.rejects
        expected: dict[str, int] = {}
        for position in range(16, 20):
            shard, group = stream.locate(next(islice(stream.read(position), 1))[0])
            begin, end = index.offsets(shard)[group : group + 2].tolist()
            name = index.files[shard]
            expected[name] = expected.get(name, 0) + 2 * (end - begin)  # here and in the step
            expected.setdefault(name.replace(".tar", ".offsets.npy"), 0)
        for name in expected:
            if name.endswith(".npy"):
                expected[name] = (shards / name).stat().st_size
        assert web.sent == expected


@pytest.mark.parametrize("fault", [500, 502, 503, 429, 408, "close", "half", "truncate"])
def test_what_a_pause_may_mend_is_read_again(
    shards: Path, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    with WebServer(shards, faults=[fault, fault]) as web:
        stream = GroupStream(directory=web.url, seed=0, shuffle=False)
        assert ids(stream, 0, 3) == ["sample-0", "sample-1", "sample-2"]
    assert take_retries() == 2
    lines = [record.message for record in caplog.records]
    assert len(lines) == 2 and all(
        f"{web.url}/shard-000000.tar: " in line and "reading again" in line for line in lines
    )


def test_a_server_that_stalls_is_asked_again(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT_S", 0.3)
    with WebServer(shards, faults=["stall"]) as web:
        stream = GroupStream(directory=web.url, seed=0, shuffle=False)
        began = time.monotonic()
        assert ids(stream, 0, 1) == ["sample-0"]
        assert 0.25 < time.monotonic() - began < 25  # the server stalls for 30
    assert take_retries() == 1


def test_after_four_attempts_the_group_is_a_reject(shards: Path) -> None:
    with WebServer(shards, faults=[503] * 4) as web:
        stream = GroupStream(directory=web.url, seed=0, shuffle=False)
        (_, group), (_, after) = islice(stream.read(), 2)
    assert isinstance(group, Reject) and group.reason == "unreadable file"
    assert str(group) == (
        f"{web.url}/shard-000000.tar, key number 0: unreadable file (HTTP 503: try again)"
    )
    assert isinstance(after, Sample) and take_retries() == 3


@pytest.mark.parametrize(
    ("status", "detail"),
    [(404, "name a place that has it"), (403, "give an address and, in the environment, a key")],
)
def test_a_shard_that_stays_away_is_not_asked_for_again(
    shards: Path, status: int, detail: str
) -> None:
    with WebServer(shards) as web:
        web.always["shard-000000.tar"] = status
        stream = GroupStream(directory=web.url, seed=0, shuffle=False)
        with pytest.raises(InputError) as error:
            list(StepLoader(steps=make_steps(stream, stop=8), rejects=Rejects()))
        said = str(error.value)
        assert f"first {web.url}/shard-000000.tar, key number 0: unreadable file (HTTP" in said
        assert f"HTTP {status}: {detail}" in said and "\n" not in said
    assert take_retries() == 0


def test_an_address_without_shards_is_one_sentence(shards: Path) -> None:
    with WebServer(shards) as web:
        assert refusal(f"{web.url}/elsewhere") == (
            f"{web.url}/elsewhere/index.json does not exist: name a directory of shards or "
            "build them."
        )
        web.always["index.json"] = 403
        assert refusal(web.url) == (
            f"{web.url}/index.json cannot be read (HTTP 403: give an address and, in the "
            "environment, a key that may read it)."
        )
        web.always["index.json"] = 500
        assert f"{web.url}/index.json cannot be read (HTTP 500: try again)." == refusal(web.url)
    assert "connection failed, ClientConnectorError: try again" in refusal(web.url)


def test_a_server_without_ranges_shows_before_anything_is_trained(shards: Path) -> None:
    with WebServer(shards, ranges=False) as web:
        assert refusal(web.url) == (
            f"{web.url}/index.json cannot be read (the server ignores byte ranges: serve the "
            "shards from one that answers them, or copy them here)."
        )
        assert take_retries() == 0
        store = http.HttpStore(web.url)
        assert store.read("index.json", 0, 20) == (shards / "index.json").read_bytes()[:20]


def test_another_range_than_asked_for_is_not_used(shards: Path) -> None:
    with WebServer(shards, faults=["other range"]) as web:
        index = ShardIndex.open(web.url)
        (group,) = index.read_groups(0, 1, 2)
    assert isinstance(group, Reject) and "the server ignores byte ranges" in group.detail


def test_a_shard_shorter_than_its_index_says_is_truncated(shards: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in shards.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    offsets = np.load(shards / "shard-000000.offsets.npy")
    (copy / "shard-000000.tar").write_bytes(
        (shards / "shard-000000.tar").read_bytes()[: int(offsets[2]) + 600]
    )
    with WebServer(copy) as web:
        groups = list(ShardIndex.open(web.url).read_groups(0, 1, 4))
    assert isinstance(groups[0], Sample)
    assert [getattr(group, "reason", "") for group in groups[1:]] == ["truncated tar"] * 2


def test_no_message_shows_a_key(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with WebServer(shards, faults=[500, 503, "close"]) as web:
        address = f"http://Aladdin:open%20sesame@{web.host}?sig=SECRET"
        assert refusal(f"http://Aladdin:sesame@{web.host}/x?sig=SECRET").startswith(
            f"http://{web.host}/x/index.json?... does not exist"
        )
        web.authorization = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # RFC 7617, section 2
        stream = GroupStream(directory=address, seed=0, shuffle=False)
        assert ids(stream, 0, 2) == ["sample-0", "sample-1"]
        assert all(path.endswith("?sig=SECRET") for path, _ in web.seen)
        web.always["shard-000000.tar"] = 403
        (group,) = stream.index.read_groups(0, 2, 3)
        web.always["index.json"] = 403
        told = [str(group), stream.where(0), refusal(address), caplog.text]
    told.append(refusal(address))  # now nobody is there
    assert len(caplog.records) >= 3
    for text in told:
        assert web.host in text
        assert not any(secret in text for secret in ("Aladdin", "sesame", "SECRET"))


def test_an_error_of_the_connection_is_one_of_the_system(shards: Path) -> None:
    with WebServer(shards) as web:
        store = http.HttpStore(web.url)
    with pytest.raises(OSError) as error:
        store.read("index.json", 0, 1)
    assert error.value.errno == errno.EIO and error.value.__cause__ is None
