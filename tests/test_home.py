"""`~` is the home folder, under whatever key and at whatever door it stands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import dress
from dress.artifact import Artifact, ArtifactStore
from dress.errors import InputError
from dress.files import from_home
from dress.jobs.job import Job
from tests.processes import Process

ROOT = Path(__file__).resolve().parents[1]
TYPED = [
    "data=photographs",
    "benchmark=pope",
    "annotator=llm",
    "annotator.base_url=http://localhost:1/v1",
    "annotator.model=m",
    *(f'{key}="~/x"' for key in ("paths.artifacts", "data.root", "source.captions", "artifact")),
    *(f'{key}="~/x"' for key in ("init_from", "reward_from", "responses", "verify", "stats")),
    *(f'{key}="~/x"' for key in ("benchmark.root", "benchmark.file", "datamodule.shards")),
    *(f'{key}="~/x"' for key in ("model.tokenizer.name", "model.language.name", "report.out")),
    'datamodule.cache.directory="~/x"',
    '+datamodule.mixture.more={artifact: "~/x", weight: 1}',
    'report.artifacts=["~/x","~/y"]',
    'shards.evaluation_sets=["~/x"]',
]


def texts(plain: Any) -> list[str]:
    if isinstance(plain, dict | list):
        children = plain.values() if isinstance(plain, dict) else plain
        return [text for child in children for text in texts(child)]
    return [plain] if isinstance(plain, str) else []


def test_every_key_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("run", TYPED)
    before = texts(OmegaConf.to_container(cfg, resolve=True))
    after = texts(OmegaConf.to_container(Job(cfg=cfg, overrides=[]).cfg, resolve=True))
    expected = [text.replace("~", "/home/someone") for text in before]
    assert after == expected
    assert sum(text.startswith("~") for text in before) >= len(TYPED) - 3
    assert "/home/someone/x/replies" in after  # what is made of another key


def test_only_a_leading_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert from_home("~") == "/home/someone"
    for path in ("a~b", "./~", "https://host/~me", "~nobody-is-called-so/x"):
        assert from_home(path) == path


def test_without_a_home_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", os.fspath)
    with pytest.raises(InputError, match="~/runs begins with ~, but no home folder is known"):
        from_home("~/runs")


def test_an_artifact_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = ArtifactStore(tmp_path / "runs")
    with store.build("a", kind="k", config={}, fingerprint="f", parents={}, inputs={}):
        pass
    assert Artifact.open("~/runs/a").path == tmp_path / "runs" / "a"
    with pytest.raises(InputError, match=f"{tmp_path}/absent does not exist"):
        dress.load("~/absent")


def test_no_folder_is_called_so(tmp_path: Path) -> None:
    command = ["-m", "experiment=dress_captions", "logger=local", 'paths.artifacts="~/runs"']
    sizes = ["data.sizes={captions: 40}", "data.validation_share=0.2", "seed=0,1"]
    environment = os.environ | {"HOME": str(tmp_path / "home")}
    process = Process(ROOT / "run.py", [*command, *sizes], environment=environment, cwd=tmp_path)
    _, errors = process.communicate(120)
    assert process.returncode == 0, errors
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    made = sorted(path.name.split("-")[0] for path in (tmp_path / "home" / "runs").iterdir())
    assert made == ["dress_captions", "dress_captions", "hydra"]
