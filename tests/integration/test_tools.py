"""Lightning's callbacks and loggers, Hydra's sweepers and launchers, in whole jobs."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import yaml
from test_devices import end, in_this_process, same_run, start

from dress.artifact import Artifact
from dress.files import read_lines

BEST = ["callbacks=[none,best_weights]", "data.steps.stage0=9", "optimizer.lr=0.01"]


def validations(artifact: Artifact) -> dict[int, float]:
    lines = read_lines(artifact.path / "metrics.jsonl")
    return {line["step"]: line["val/loss"] for line in lines if "val/loss" in line}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A run with everything at once; patience ends it at the second validation, at step 6."""
    return in_this_process(
        tmp_path_factory.mktemp("tools"),
        "callbacks=[none,early_stopping,best_weights,learning_rate_monitor]",
        "callbacks.early_stopping.mode=max",
        "callbacks.early_stopping.patience=1",
        "logger=[local,csv]",
        "+trainer.profiler._target_=lightning.pytorch.profilers.SimpleProfiler",
        "+trainer.profiler.dirpath=${paths.artifacts}",
        "+trainer.profiler.filename=profile",
        "data.steps.stage0=12",
    )


def test_training_stops_and_the_artifact_holds_the_best_weights(stopped: Artifact) -> None:
    losses = validations(stopped)
    assert list(losses) == [3, 6] and losses[6] < losses[3]
    assert stopped.metrics["best/step"] == 6 and stopped.metrics["val/loss"] == losses[6]
    config = stopped.config
    assert set(config["callbacks"]) == {"early_stopping", "best_weights"}
    assert config["trainer"]["val_check_interval"] == 3
    assert not list(stopped.path.rglob("best-*"))


def test_lightnings_logger_and_callbacks_log(stopped: Artifact) -> None:
    with (stopped.path / "csv/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    rates = [name for name in rows[0] if name.startswith("lr-AdamW/")]
    assert rates and len([row for row in rows if row[rates[0]]]) == 6
    assert [float(r["val/loss"]) for r in rows if r["val/loss"]] == [*validations(stopped).values()]
    (profile,) = stopped.path.parent.glob("fit-profile*.txt")
    assert "run_training_batch" in profile.read_text()


@pytest.mark.slow
def test_the_best_weights_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    alone = in_this_process(tmp_path / "one", *BEST, "callbacks.best_weights.mode=max")
    assert alone.metrics["best/step"] == max(validations(alone), key=validations(alone).get)
    assert alone.metrics["best/step"] < 9
    together = in_this_process(
        tmp_path / "two", *BEST, "callbacks.best_weights.mode=max", "trainer.devices=2"
    )
    same_run(alone, together)


@pytest.mark.slow
def test_optuna_is_told_the_figure_and_trials_share_their_parents(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="an optional package")
    sweep = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "sweep.metric=val/loss"]
    typed = [*sweep, "optimizer.lr=tag(log,interval(1e-4,1e-2))", f"paths.artifacts={tmp_path}"]
    code, output, errors = end(start("-m", *typed))
    assert code == 0, errors
    built = [Artifact.open(p) for p in re.findall(r"^artifact: (.*)$", output, re.MULTILINE)]
    best = min(built, key=lambda artifact: artifact.metrics["val/loss"])
    (results,) = tmp_path.rglob("optimization_results.yaml")
    found = yaml.safe_load(results.read_text())
    assert len(built) == 3 and found["best_value"] == best.metrics["val/loss"]
    assert found["best_params"] == {"optimizer.lr": best.config["optimizer"]["lr"]}
    assert len(list(tmp_path.glob("dress_captions-*"))) == 1


@pytest.mark.slow
def test_submitit_runs_jobs_side_by_side_that_share_their_parents(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="an optional package")
    typed = ["hydra/launcher=submitit_local", "optimizer.lr=0.001,0.002"]
    code, _, errors = end(start("-m", *typed, f"paths.artifacts={tmp_path}"))
    assert code == 0, errors
    built = [Artifact.open(path) for path in tmp_path.glob("dress_stage0-*")]
    assert sorted(a.config["optimizer"]["lr"] for a in built) == [0.001, 0.002]
    assert len(list(tmp_path.glob("dress_captions-*"))) == 1
    code, _, errors = end(start("-m", *typed, "parents=bogus", f"paths.artifacts={tmp_path}"))
    assert code == 1 and errors.endswith("error: parents is 'bogus': choose build or require.\n")
    assert "Traceback" not in errors
