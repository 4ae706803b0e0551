"""A finished model becomes an artifact of W&B, with what it was made from."""

from __future__ import annotations

import os
from typing import Any

import pytest
from wandb_file import records

from tests.processes import Process

LOG = """
import sys
from pathlib import Path
from dress.artifact import ArtifactStore
from lit_modules.loggers.weights_and_biases import log_model, wandb_logger

store = ArtifactStore(Path(sys.argv[1]))
settings = {"project": None, "mode": "offline"}

def made(name, kind, parents):
    given = {"kind": kind, "config": {"name": name}, "fingerprint": f"{name}-print", "inputs": {}}
    with store.build(f"{name}-0123456789ab", parents=parents, **given) as building:
        (building.path / "weights").mkdir()
        (building.path / "weights" / "part.safetensors").write_text(name)
        (building.path / "samples.html").write_text("not logged")
        building.write_metrics({"val/loss": 1.0})
        if kind == "model":
            with wandb_logger(directory=building.path, config={}, is_parent=False, **settings):
                pass
    return building.artifact

data = made("instructions", "shards", {})
first = made("stage1", "model", {"data": data})
second = made("stage2", "model", {"data": data, "init": first})
log_model(first, {"data": data}, is_parent=True, **settings)
for _ in range(2):
    log_model(second, {"data": data, "init": first}, is_parent=False, **settings)
"""
FILES = {"config.yaml", "metrics.json", "weights/part.safetensors"}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Run to the records of its artifacts, in the order in which they were logged."""
    folder = tmp_path_factory.mktemp("log_model")
    (folder / "log.py").write_text(LOG)
    environment = os.environ | {"WANDB_MODE": "offline"}
    process = Process(folder / "log.py", [str(folder / "artifacts")], environment=environment)
    output, errors = process.communicate(180)
    assert process.returncode == 0, output + errors
    found: dict[str, list[Any]] = {}
    for file in sorted(folder.glob("artifacts/*/wandb/offline-run-*/*.wandb")):
        run = file.parents[2].name.partition("-")[0]
        found.setdefault(run, []).extend(
            r.artifact for r in records(file) if r.HasField("artifact")
        )
    return found


def files(record: Any) -> set[str]:
    return {entry.path for entry in record.manifest.contents}


def test_a_model_is_logged_once_with_weights_and_figures_alone(logged: dict[str, Any]) -> None:
    for run in ("stage1", "stage2"):
        (model,) = [r for r in logged[run] if not r.use_after_commit]
        assert (model.name, model.type) == (run, "model") and files(model) == FILES
        assert set(model.aliases) == {"latest", f"{run}-print"}


def test_its_parents_are_what_the_run_used(logged: dict[str, Any]) -> None:
    data, init = [r for r in logged["stage2"] if r.use_after_commit]
    assert (data.name, data.type, files(data)) == ("instructions", "dataset", {"fingerprint.txt"})
    assert (init.name, init.type, files(init)) == ("stage1", "model", FILES)
    (own,) = [r for r in logged["stage1"] if not r.use_after_commit]
    assert init.digest == own.digest  # one version, whichever run names it
