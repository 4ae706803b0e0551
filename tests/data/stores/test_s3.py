"""Shards in S3: moto's server speaks the protocol, a web server of our own fails in its place."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from dress.data.reading import take_retries
from dress.data.shard_index import ShardIndex
from dress.data.stores import s3
from dress.data.stream import GroupStream
from dress.errors import InputError, Reject
from tests.data.stores.test_http import ids, refusal
from tests.data.stores.web_server import Fault, WebServer
from tests.data.test_stream import COUNT

SECRET = "wJalrXUtnFEMI-secret"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, shards: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Store the shards; return their address."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="shelf")
    for path in shards.iterdir():
        client.upload_file(str(path), "shelf", f"some/shards/{path.name}")
    return "s3://shelf/some/shards"


def test_the_stream_is_the_one_on_disk(shards: Path, bucket: str) -> None:
    local = GroupStream(directory=shards, seed=3, window=7)
    remote = GroupStream(directory=bucket, seed=3, window=7)
    assert ids(remote, 0, 2 * COUNT) == ids(local, 0, 2 * COUNT)
    assert ids(remote, 31, 9) == ids(local, 31, 9)
    assert remote.where(0) == f"{bucket}/{Path(local.where(0)).name}"
    remote.index.verify()
    assert take_retries() == 0


def test_what_is_not_there_is_one_sentence(bucket: str, endpoint: str) -> None:
    assert refusal(f"{bucket}/x").startswith(f"{bucket}/x/index.json does not exist: name a")
    assert refusal("s3://no-such-shelf/x").startswith("s3://no-such-shelf/x/index.json does not")
    index = ShardIndex.open(bucket)
    boto3.client("s3", endpoint_url=endpoint).delete_object(
        Bucket="shelf", Key="some/shards/shard-000001.tar"
    )
    (group,) = index.read_groups(1, 0, 1)
    assert isinstance(group, Reject) and group.detail == "S3: NoSuchKey: name a place that has it"
    assert take_retries() == 0


def test_without_a_key_nothing_is_asked(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert refusal(bucket) == (
        f"{bucket}/index.json cannot be read (no key found: give an address and, in the "
        "environment, a key that may read it)."
    )


@pytest.fixture
def shelf(shards: Path, tmp_path: Path) -> Path:
    (tmp_path / "shelf").symlink_to(shards)
    return tmp_path


@pytest.mark.parametrize("fault", [500, 503, "close", "truncate"])
def test_what_a_pause_may_mend_is_read_again(
    shelf: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
) -> None:
    with WebServer(shelf, faults=[fault, fault]) as web:
        monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
        stream = GroupStream(directory="s3://shelf", seed=0, shuffle=False)
        assert ids(stream, 0, 3) == ["sample-0", "sample-1", "sample-2"]
        asked = [path for path, _ in web.seen if path.endswith(".tar")]
    assert take_retries() == 2 and len(asked) == 3 + 2  # by us alone, so that each is counted
    assert len(caplog.records) == 2
    for record in caplog.records:
        assert "s3://shelf/shard-000000.tar: " in record.message


def test_a_server_that_stalls_is_asked_again(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "TIMEOUT_S", 0.3)
    with WebServer(shelf, faults=["stall"]) as web:
        monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
        assert ids(GroupStream(directory="s3://shelf", seed=0, shuffle=False), 0, 1) == ["sample-0"]
    assert take_retries() == 1


def test_a_refused_key_is_one_sentence_without_it(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with WebServer(shelf) as web:
        monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
        index = ShardIndex.open("s3://shelf")
        web.always = {"shard-000000.tar": 403, "index.json": 403}
        (group,) = index.read_groups(0, 0, 1)
        told = [str(group), refusal("s3://shelf"), caplog.text]
    assert told[0].startswith("s3://shelf/shard-000000.tar, key number 0: unreadable file (S3: ")
    assert "a key that may read it" in told[0] and "a key that may read it" in told[1]
    assert not any(secret in text for text in told for secret in (SECRET, "AKIDEXAMPLE"))
    assert take_retries() == 0


def test_a_server_without_ranges_is_noticed(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with WebServer(shelf, ranges=False) as web:
        monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
        assert "the server ignores byte ranges" in refusal("s3://shelf")


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for place, module in (("s3://shelf", "s3fs"), ("https://127.0.0.1/x", "aiohttp")):
        monkeypatch.delitem(
            sys.modules, f"dress.data.stores.{place.split(':')[0].rstrip('s')}", False
        )
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(InputError, match=rf"needs the package {module}: pip install -e"):
            ShardIndex.open(place)
