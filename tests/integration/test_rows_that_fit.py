"""datamodule.rows_per_batch=auto: training takes the rows that job=plan finds to fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from dress.errors import InputError
from dress.jobs import plan
from dress.jobs.checks import check
from dress.jobs.job import Job, forwarded_overrides
from dress.jobs.planned import Devices, planned
from dress.jobs.train import fingerprinted

ROOT = Path(__file__).resolve().parents[2]


def test_training_takes_as_many_rows_as_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The number is that of job=plan for the memory here, and no part of what is fingerprinted."""
    typed = [
        *("experiment=dress_stage2", "model=tiny", "optimizer=adamw", "model.max_length=64"),
        *("model.language.config.num_hidden_layers=1", "model.vision.config.layers=1"),
    ]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        auto = [*typed, "datamodule.rows_per_batch=auto"]
        job = Job(cfg=compose("run", auto), overrides=auto)
        four = Job(cfg=compose("run", typed), overrides=typed)
    check(job.cfg)
    assert fingerprinted(job) == fingerprinted(four)
    assert forwarded_overrides(auto)[-1] == "datamodule.rows_per_batch=auto"
    memory = 2**30
    monkeypatch.setattr(plan, "found_here", lambda _: {"memory": memory, "fused": False})
    plan.settle_rows(job)
    rows = job.cfg.datamodule.rows_per_batch
    assert capsys.readouterr().out == (
        f"rows_per_batch={rows}: as many rows of 64 tokens fit 0.9 GiB\n"
    )
    nodes = plan.nodes_of(job, plan.Planning(**job.node("plan")))
    devices = Devices("here", 1, "ddp", memory=memory, usable=int(0.9 * memory), flops=None)
    (setting,) = (found := planned(job, nodes, devices=devices, lengths=[64]))["settings"]
    assert rows == setting["rows_that_fit"] > 100
    taken = sum(found["rest"].values()) + setting["activations"][str(rows)]
    assert taken <= devices.usable < taken * (1 + 2 / rows)
    job.cfg.datamodule.rows_per_batch, memory = "auto", 2**20
    with pytest.raises(InputError, match="not one row of 64 tokens fits"):
        plan.settle_rows(job)


def test_what_a_cpu_has_free_is_divided_among_processes() -> None:
    found = [plan.found_here(DictConfig({"accelerator": "cpu", "devices": n})) for n in (1, 4)]
    assert found[0]["memory"] == pytest.approx(4 * found[1]["memory"], rel=0.3)
    assert 2**26 < found[0]["memory"] and not found[0]["fused"]
