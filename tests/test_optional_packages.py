"""Sweepers, launchers and loggers of other packages: what is missing is named at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hydra.errors import MissingConfigException

from dress.jobs.keys import composition_sentence
from tests.test_settings import check_all

ROOT = Path(__file__).resolve().parents[1]


def test_the_command_of_the_shipped_sweep_of_wandb_is_read() -> None:
    sweep = yaml.safe_load((ROOT / "benchmarks/sweep.yaml").read_text())
    assert (ROOT / sweep["program"]).is_file()
    trial = [
        f"{key}={range_['min'] if 'min' in range_ else range_['values'][0]}"
        for key, range_ in sweep["parameters"].items()
    ]
    check_all(*[part for part in sweep["command"] if not part.startswith("${")], *trial)


def test_a_sweeper_that_chooses_by_a_figure_is_told_which(refused: Callable[..., str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="an optional package")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sweep = ["-m", "hydra/sweeper=optuna", "optimizer.lr=choice(1,2)", "experiment=dress_stage0"]
    assert "give sweep.metric=val/loss" in refused(*sweep)


@pytest.mark.parametrize(
    ("package", "overrides"),
    [
        ("tensorboard", ["logger=[default,tensorboard]"]),
        ("mlflow", ["logger=[local,mlflow]"]),
        ("psutil", ["callbacks=[none,device_stats_monitor]"]),
    ],
)
def test_a_missing_package_is_named_before_anything_is_built(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, package: str, overrides: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert f"pip install {package}." in refused("experiment=dress_stage2", *overrides)


def test_a_missing_plug_in_of_hydra_is_named() -> None:
    error = MissingConfigException("", "hydra/sweeper/optuna", ["basic"])
    assert composition_sentence(error).endswith("pip install hydra-optuna-sweeper.")
