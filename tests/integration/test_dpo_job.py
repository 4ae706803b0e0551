"""experiment=silkie_dpo, shortened: from nothing to a table beside stage 1, and resumed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from test_main_job import EVALUATION, TINY

import dress
from dress.artifact import Artifact
from dress.jobs.job import Job
from lit_modules.alignment import AlignmentModule

CONF = Path(__file__).resolve().parents[2] / "conf"
COMMAND = [
    "experiment=silkie_dpo",
    *TINY,
    *EVALUATION,
    "feedback.samples=4",
    "trainer.save_every=1000",
    "trainer.log_every=1",
    "trainer.matmul_precision=highest",
]
FIGURES = {
    *(f"rewards/{name}" for name in ("chosen", "rejected", "margin", "accuracy")),
    *(f"log_probs/{name}" for name in ("chosen", "rejected")),
    "kl",
    "loss",
}


@pytest.fixture(autouse=True, scope="module")
def configurations() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield
    torch.set_num_threads(threads)
    torch.backends.cuda.enable_flash_sdp(True)


def run(folder: Path, *overrides: str) -> Artifact:
    typed = [*COMMAND, *overrides, f"paths.artifacts={folder}"]
    return Job(cfg=compose("run", typed), overrides=typed).run()


def weights(artifact: Artifact) -> dict[str, bytes]:
    files = sorted((artifact.path / "weights").iterdir())
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("silkie")


@pytest.fixture(scope="module")
def trained(folder: Path) -> Artifact:
    return run(folder)


def test_it_learns_from_the_feedback_on_stage_1_and_logs_its_figures(trained: Artifact) -> None:
    parents = {r: p["name"].rpartition("-")[0] for r, p in trained.lineage["parents"].items()}
    assert parents == {"init": "dress_stage1", "data": "dress_feedback"}
    metrics = trained.metrics
    assert {f"{stage}/{name}" for stage in ("train", "val") for name in FIGURES} <= set(metrics)
    assert all(re.fullmatch(r"[\w ]+(/\w+)+", name) for name in metrics)
    assert metrics["val/rewards/margin"] == pytest.approx(
        metrics["val/rewards/chosen"] - metrics["val/rewards/rejected"], abs=1e-6
    )
    assert 0 <= metrics["val/rewards/accuracy"] <= 1 and metrics["val/kl"] > 0
    history = [json.loads(line) for line in (trained.path / "metrics.jsonl").open()]
    losses = [line["train/loss"] for line in history if "train/loss" in line]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)  # log 2: the policy is the reference


def test_it_ends_with_a_table_beside_stage_1(
    folder: Path, trained: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {"world/mean", "init/world/mean"} <= set(trained.metrics)
    run(folder)  # what is done is shown again
    shown = capsys.readouterr().out
    assert "stage 1" in shown and "DPO" in shown and "gain: helpful" in shown
    assert dress.load(trained.path).condition.form == "none"


def test_it_has_the_parents_and_the_budget_of_stage_2() -> None:
    ours, stage2 = (compose("run", [f"experiment={n}"]) for n in ("silkie_dpo", "dress_stage2"))
    assert ours.lineage == stage2.lineage
    for key in ("max_steps", "warmup_steps"):
        assert ours.trainer[key] == stage2.trainer[key]
    assert ours.datamodule.groups_per_step == stage2.datamodule.groups_per_step


def test_interrupted_and_run_again_it_gives_the_same_bits(
    folder: Path, tmp_path: Path, trained: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    for parent in folder.glob("dress_*"):
        if parent.is_dir():
            shutil.copytree(parent, tmp_path / parent.name)
    steps: list[int] = []
    original = AlignmentModule.training_step

    def training_step(self: AlignmentModule, batch: Any, batch_idx: int) -> None:
        steps.append(self.global_step)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        original(self, batch, batch_idx)

    monkeypatch.setattr(AlignmentModule, "training_step", training_step)
    with pytest.raises(BaseException) as stopped:
        run(tmp_path, "compare=[]")
    assert not isinstance(stopped.value, Exception), stopped.value
    resumed = run(tmp_path, "compare=[]")
    assert steps == [0, 1, 2, 3]  # the reference is still the model before the first of them
    assert weights(resumed) == weights(trained)
    shared = {n: v for n, v in trained.metrics.items() if "world/" not in n}
    assert resumed.metrics == shared
