"""A read that fails for a moment is tried again; one that cannot succeed is not."""

from __future__ import annotations

import builtins
import errno
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dress.data import reading
from dress.data.rejects import Rejects
from dress.data.shard_index import ShardIndex
from dress.data.shard_writer import ShardWriter
from dress.data.stream import GroupStream, StepLoader
from dress.errors import InputError, Reject
from tests.chat.tiny_chat import make_sample
from tests.data.test_stream import make_steps

Failing = Callable[[int, int], None]


@pytest.fixture(autouse=True)
def nothing_counted() -> Iterator[None]:
    reading.take_retries()
    yield
    reading.take_retries()


@pytest.fixture()
def shards(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path) as writer:
        writer.write(make_sample(0))
    return tmp_path


@pytest.fixture()
def index(shards: Path) -> ShardIndex:
    opened = ShardIndex.open(shards)
    opened.offsets(0)  # kept, so that only the shard itself is read below
    return opened


@pytest.fixture()
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note pauses instead of making them."""
    made: list[float] = []
    monkeypatch.setattr(reading.time, "sleep", made.append)
    return made


@pytest.fixture()
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """Let the system fail to open shards a number of times, as a network file system does."""

    def fail(times: int, number: int) -> None:
        left = [times]

        def opened(path: Any, *arguments: Any, **options: Any) -> Any:
            if str(path).endswith((".tar", ".json", ".npy")) and left[0]:
                left[0] -= 1
                raise OSError(number, os.strerror(number), str(path))
            return original(path, *arguments, **options)

        original = builtins.open
        monkeypatch.setattr(builtins, "open", opened)

    return fail


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET])
def test_what_a_pause_may_mend_is_read_again(
    index: ShardIndex, pauses: list[float], failing: Failing, number: int
) -> None:
    failing(2, number)
    assert list(index.read_groups(0, 0, 1)) == [make_sample(0)]
    assert pauses == [0.1, 0.4] and reading.take_retries() == 2


def test_after_four_attempts_the_group_is_a_reject(
    shards: Path,
    index: ShardIndex,
    pauses: list[float],
    failing: Failing,
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing(4, errno.EIO)
    (group,) = index.read_groups(0, 0, 1)
    assert isinstance(group, Reject) and group.reason == "unreadable file"
    assert pauses == [0.1, 0.4, 1.6]
    assert [record.message for record in caplog.records] == [
        f"{shards}/shard-000000.tar: Input/output error; reading again in {pause} s"
        for pause in (0.1, 0.4, 1.6)
    ]
    assert list(index.read_groups(0, 0, 1)) == [make_sample(0)]  # and the next read may succeed


def test_what_no_pause_mends_is_not_read_again(
    shards: Path, index: ShardIndex, pauses: list[float], failing: Failing
) -> None:
    failing(1, errno.EACCES)
    (group,) = index.read_groups(0, 0, 1)
    (shards / index.files[0]).unlink()
    (absent,) = index.read_groups(0, 0, 1)
    assert all(isinstance(g, Reject) and g.reason == "unreadable file" for g in (group, absent))
    assert pauses == [] and reading.take_retries() == 0


def test_the_index_is_read_again_too(shards: Path, pauses: list[float], failing: Failing) -> None:
    failing(3, errno.EIO)
    assert len(ShardIndex.open(shards)) == 1
    failing(9, errno.EIO)
    with pytest.raises(InputError, match=r"json cannot be read \(Input/output error: try again\)"):
        ShardIndex.open(shards)


def test_a_real_failure_of_the_system(index: ShardIndex) -> None:
    """With no file descriptor left, reading fails until some are closed."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 20, before[1]))
        with pytest.raises(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))

        def close_soon() -> None:
            time.sleep(0.2)
            os.close(held.pop())

        thread = threading.Thread(target=close_soon)
        thread.start()
        assert list(index.read_groups(0, 0, 1)) == [make_sample(0)]
        thread.join()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in (free, *held):
            os.close(descriptor)
    assert reading.take_retries() == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_retries_are_counted_here_whatever_the_workers(
    shards: Path, failing: Failing, workers: int
) -> None:
    stream = GroupStream(directory=shards, seed=0)
    stream.index.offsets(0)
    rejects = Rejects()
    loader = StepLoader(
        steps=make_steps(stream, groups_per_step=1, stop=4), rejects=rejects, num_workers=workers
    )
    failing(1, errno.EIO)  # once in each process
    assert len(list(loader)) == 4
    assert rejects.retries == max(workers, 1) and rejects.count == 0
    assert rejects.metrics()["data/read_retries"] == rejects.retries
