"""A job that trains on shards behind a URL, as if they lay here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, rmtree

import pytest
import torch
from hydra import compose, initialize_config_dir

from dress.errors import InputError
from dress.jobs.checks import check
from dress.jobs.job import Job
from tests.data.stores.web_server import WebServer
from tests.integration.test_mixture_job import CONF, SMALL, mixed


@pytest.fixture(autouse=True)
def configurations(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield
    torch.set_num_threads(threads)


def job(folder: Path, *overrides: str) -> Job:
    typed = [*overrides, *SMALL, "data.steps.stage0=2", f"paths.artifacts={folder}"]
    return Job(cfg=compose("run", typed), overrides=typed)


def test_what_is_trained_does_not_depend_on_where_shards_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = job(tmp_path / "here", "experiment=dress_captions").run()
    local = job(tmp_path / "here", "experiment=dress_stage0").run()
    served = tmp_path / "served" / "shelf"
    copytree(captions.path, served)
    cache = tmp_path / "copies"
    with WebServer(tmp_path / "served") as web:
        monkeypatch.setenv("SHARDS", f"{web.url}/shelf?sig=SECRET")
        there = [
            "experiment=dress_stage0",
            "datamodule.shards=${oc.env:SHARDS}",
            f"datamodule.cache.directory={cache}",
        ]
        remote = job(tmp_path / "there", *there).run()
        assert web.sent and len(list(cache.glob("*.tar"))) == 2  # one of each split
        mixture = mixed(f"{web.url}/shelf", 1.0)
        both = job(tmp_path / "there", "experiment=dress_stage0", mixture, *there[1:]).run()
    assert not list((tmp_path / "there").glob("dress_captions*"))
    assert remote.fingerprint == local.fingerprint and remote.name == local.name
    assert remote.lineage["parents"] == local.lineage["parents"]
    assert both.lineage["parents"]["mixture_more"]["fingerprint"] == captions.fingerprint
    assert remote.metrics["val/loss"] == pytest.approx(local.metrics["val/loss"], rel=1e-6)
    for path in (tmp_path / "there").rglob("*"):
        assert not path.is_file() or b"SECRET" not in path.read_bytes()
    rmtree(tmp_path / "here")
    again = job(tmp_path / "there", "experiment=dress_stage0", f"datamodule.shards={served}")
    assert again.run().path == remote.path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("datamodule.shards='https://me:pw@h/x'", r"shards \(https://h/x\) holds a key: put the"),
        ("datamodule.shards='https://h/x?sig=pw'", r"\(https://h/x\?\.\.\.\) holds a key"),
        (mixed("https://h/x?sig=pw"), r"datamodule.mixture.more.artifact \(https://h/x\?\.\.\.\)"),
        ("datamodule.shards='gs://bucket/x'", "'gs' is no kind of place for shards"),
        ("datamodule.shards='s3://B/x'", "an address in S3 is s3://BUCKET/FOLDER"),
        ("datamodule.cache.gigabytes=0", "datamodule.cache.gigabytes is 0: give a number, 0.001"),
    ],
)
def test_wrong_places_are_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        check(job(tmp_path, "experiment=dress_stage0", override).cfg)
    assert "pw" not in str(error.value)


def test_an_address_must_hold_an_artifact_of_shards(tmp_path: Path) -> None:
    captions = job(tmp_path / "a", "experiment=dress_captions").run()
    lineage = captions.path / "lineage.json"
    with WebServer(captions.path) as web:
        training = job(tmp_path / "b", "experiment=dress_stage0", f"datamodule.shards={web.url}")
        for text, message in (
            (lineage.read_text().replace('"shards"', '"model"'), "describes no shards"),
            ("[]", "is damaged: copy the artifact again"),
            ("{", "is damaged: copy the artifact again"),
        ):
            lineage.write_text(text)
            with pytest.raises(InputError, match=f"{web.url}/lineage.json {message}"):
                training.run()
        lineage.unlink()
        with pytest.raises(InputError, match=r"json does not exist: give the address of a copy"):
            training.run()
    assert not list((tmp_path / "b").glob("*-*"))
