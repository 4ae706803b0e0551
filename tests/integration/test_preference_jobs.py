"""silkie_dpo and llava_rlhf_rm, shortened: from nothing to their figures, and resumed."""

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
from safetensors.torch import load_file
from test_main_job import EVALUATION, TINY

import dress
from dress.artifact import Artifact
from dress.jobs.job import Job
from dress.objectives.calibration import BINS
from lit_modules.alignment import AlignmentModule

CONF = Path(__file__).resolve().parents[2] / "conf"
COMMAND = [
    *TINY,
    *EVALUATION,
    "feedback.samples=4",
    "data.noise=0.5",  # ratings that differ, so that some validation pair is there
    "callbacks.train_state.every_n_steps=1000",
    "trainer.log_every_n_steps=1",
    "matmul_precision=highest",
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


def run(folder: Path, experiment: str, *overrides: str) -> Artifact:
    typed = [f"experiment={experiment}", *COMMAND, *overrides, f"paths.artifacts={folder}"]
    return Job(cfg=compose("run", typed), overrides=typed).run()


def weights(artifact: Artifact) -> dict[str, bytes]:
    files = sorted((artifact.path / "weights").iterdir())
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("silkie")


@pytest.fixture(scope="module")
def trained(folder: Path) -> Artifact:
    return run(folder, "silkie_dpo")


@pytest.fixture(scope="module")
def judge(folder: Path) -> Artifact:
    return run(folder, "llava_rlhf_rm")


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
    run(folder, "silkie_dpo")  # what is done is shown again
    shown = capsys.readouterr().out
    assert "stage 1" in shown and "DPO" in shown and "gain: helpful" in shown
    assert dress.load(trained.path).condition.form == "none"


def test_it_has_the_parents_and_the_budget_of_stage_2() -> None:
    ours, stage2 = (compose("run", [f"experiment={n}"]) for n in ("silkie_dpo", "dress_stage2"))
    replayed = {"replay": "dress_captions"}  # what preferences do not learn from
    assert dict(ours.lineage) | replayed == dict(stage2.lineage)
    assert ours.trainer.max_steps == stage2.trainer.max_steps
    assert ours.scheduler == stage2.scheduler
    assert ours.datamodule.groups_per_step == stage2.datamodule.groups_per_step


def test_the_reward_model_has_held_out_accuracy_with_and_without_facts(
    folder: Path, trained: Artifact, judge: Artifact
) -> None:
    blind = run(folder, "llava_rlhf_rm", "datamodule.encoder.facts=false")
    assert blind.name != judge.name
    for artifact in (judge, blind):
        assert artifact.lineage["parents"] == trained.lineage["parents"]
        assert 0 <= artifact.metrics["val/rewards/accuracy"] <= 1
        shares = [artifact.metrics[f"val/rewards/at_{begin}/share"] for begin in BINS]
        assert sum(shares) == pytest.approx(1)
        history = [json.loads(line) for line in (artifact.path / "metrics.jsonl").open()]
        assert {line["step"] for line in history if "train/rewards/margin" in line} == {1, 2, 3, 4}
    assert blind.metrics["val/loss"] != judge.metrics["val/loss"]


def test_a_loaded_reward_model_has_the_trained_head(judge: Artifact) -> None:
    head = dress.load(judge.path).model.scalar_head
    stored = load_file(judge.path / "weights" / "scalar_head.safetensors")
    assert head is not None and torch.equal(head.weight, stored["weight"])
    assert float(head.bias) != 0  # it began as zero


@pytest.mark.parametrize(
    "experiment", ["silkie_dpo", pytest.param("llava_rlhf_rm", marks=pytest.mark.slow)]
)
def test_interrupted_and_run_again_it_gives_the_same_bits(
    folder: Path,
    tmp_path: Path,
    experiment: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = request.getfixturevalue("trained" if experiment == "silkie_dpo" else "judge")
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
        run(tmp_path, experiment, "compare=[]")
    assert not isinstance(stopped.value, Exception), stopped.value
    resumed = run(tmp_path, experiment, "compare=[]")
    assert steps == [0, 1, 2, 3]  # the reference is still the model before the first of them
    assert weights(resumed) == weights(whole)
    shared = {n: v for n, v in whole.metrics.items() if "world/" not in n}
    assert resumed.metrics == shared


def test_a_cached_reference_trains_the_same_and_is_used_again(
    trained: Artifact, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = trained.metrics
    other = run(folder, "silkie_dpo", "objective.reference=cached", "fresh=true")
    assert other.name == trained.name  # it is no other result
    (kept,) = folder.glob("dress_reference-*")
    rows = load_file(kept / "log_probs.safetensors")
    assert rows and all((row <= 0).all() for row in rows.values())
    for name, value in other.metrics.items():
        assert value == pytest.approx(expected[name], rel=1e-4, abs=1e-4), name
    capsys.readouterr()
    again = run(folder, "silkie_dpo", "objective.reference=cached", "objective.beta=0.2")
    assert again.name != trained.name
    said = capsys.readouterr().out
    assert "dress_reference" in said and "building dress_reference" not in said
    assert len(list(folder.glob("dress_reference-*"))) == 1
