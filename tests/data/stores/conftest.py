from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dress.data import reading
from dress.data.shard_writer import ShardWriter
from tests.chat.tiny_chat import make_sample
from tests.data.test_stream import COUNT


@pytest.fixture(autouse=True)
def own_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of this machine's proxies, keys or counts; pauses that do not last."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(reading, "PAUSES", (0.01, 0.02, 0.04))
    reading.take_retries()
    yield
    reading.take_retries()


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 23 groups in five shards: shard-000000.tar and so on, and their index."""
    directory = tmp_path_factory.mktemp("served")
    with ShardWriter(directory, max_groups=5) as writer:
        for number in range(COUNT):
            writer.write(make_sample(number))
    return directory
