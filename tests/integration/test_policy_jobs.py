"""llava_rlhf_ppo and grpo, shortened: from nothing to their figures, resumed between rollouts."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from test_preference_jobs import configurations, run, weights

import dress
from dress.artifact import Artifact
from dress.errors import InputError
from lit_modules.policy import PolicyModule

assert configurations  # a fixture that pytest finds by this import
SHORT = [
    "data.steps={stage0: 4, stage1: 4, stage2: 8, stage3: 4}",
    "objective.rollouts.max_new_tokens=8",
    "objective.rollouts.max_unfinished=2",  # models of four steps do not stop
    "datamodule.groups_per_step=3",
    "datamodule.rows_per_batch=1",
    "trainer.val_check_interval=2",
]
ROLLOUT = (
    *("reward", "score", "correctness", "no_end_share", "true_score", "kl", "entropy"),
    *("response_length", "advantages", "advantages_abs"),
)
STEP = ("loss", "policy_loss", "clip_fraction", "ratio", "approx_kl", "grad_norm", "learning_rate")


def trained(folder: Path, experiment: str, *overrides: str) -> Artifact:
    return run(folder, experiment, *SHORT, *overrides)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("policy")


@pytest.fixture(scope="module")
def ppo(folder: Path) -> Artifact:
    return trained(folder, "llava_rlhf_ppo")


@pytest.fixture(scope="module")
def grpo(folder: Path) -> Artifact:
    return trained(folder, "grpo")


@pytest.mark.parametrize("kind", ["ppo", "grpo"])
def test_it_finds_its_parents_and_logs_every_term(
    kind: str, request: pytest.FixtureRequest, folder: Path
) -> None:
    artifact: Artifact = request.getfixturevalue(kind)
    parents = {r: p["name"].rpartition("-")[0] for r, p in artifact.lineage["parents"].items()}
    assert parents == {"init": "dress_stage1", "data": "dress_prompts", "reward": "llava_rlhf_rm"}
    metrics = artifact.metrics
    own = ("values", "returns") if kind == "ppo" else ()
    steps = ("value_loss", "value_clip_fraction") if kind == "ppo" else ("kl",)
    assert {f"ppo/{name}" for name in (*ROLLOUT, *own)} <= set(metrics)
    assert {f"train/{name}" for name in (*STEP, *steps)} <= set(metrics)
    assert 1 <= metrics["val/true_score"] <= 4 and "val/kl" in metrics
    assert metrics["ppo/rollouts"] == 2
    # two rollouts of three prompts with four responses of eight tokens at most
    assert 24 <= metrics["train/generated_tokens"] <= 2 * 3 * 4 * 8
    assert metrics["train/trained_tokens"] == 2 * metrics["train/generated_tokens"]
    assert {"world/mean", "init/world/mean"} <= set(metrics)
    history = [json.loads(line) for line in (artifact.path / "metrics.jsonl").open()]
    assert [line["step"] for line in history if "train/loss" in line] == [4, 8]
    assert abs(next(line["ppo/kl"] for line in history if "ppo/kl" in line)) < 1e-4


def test_the_policy_that_is_saved_answers(ppo: Artifact, grpo: Artifact, folder: Path) -> None:
    models = [dress.load(artifact.path).model for artifact in (ppo, grpo)]
    stage1 = next(folder.glob("dress_stage1-*"))
    start = dress.load(stage1).model
    assert all(model.scalar_head is None for model in models)
    for name, weight in start.language.named_parameters():
        if name.endswith("q_proj.weight"):
            for model in models:
                assert not torch.equal(dict(model.language.named_parameters())[name], weight)


@pytest.mark.parametrize("kind", ["ppo", pytest.param("grpo", marks=pytest.mark.slow)])
def test_interrupted_and_run_again_it_gives_the_same_bits(
    kind: str,
    folder: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole: Artifact = request.getfixturevalue(kind)
    for parent in (*folder.glob("dress_*"), *folder.glob("llava_rlhf_rm-*")):
        if parent.is_dir():
            shutil.copytree(parent, tmp_path / parent.name)
    begun: list[int] = []
    original = PolicyModule.training_step

    def training_step(self: PolicyModule, batch: Any, batch_idx: int) -> None:
        begun.append(self.rollouts)
        if len(begun) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        original(self, batch, batch_idx)

    monkeypatch.setattr(PolicyModule, "training_step", training_step)
    experiment = "llava_rlhf_ppo" if kind == "ppo" else "grpo"
    with pytest.raises(BaseException, match="interrupted at step 4") as stopped:
        trained(tmp_path, experiment, "compare=[]")
    assert not isinstance(stopped.value, Exception), stopped.value
    (state,) = tmp_path.glob(f"{experiment}-*.partial/**/last.ckpt")
    saved = torch.load(state, weights_only=True)["state_dict"]
    assert any(name.startswith("critic.") for name in saved) == (kind == "ppo")
    assert not any(name.startswith("judge.") for name in saved)
    resumed = trained(tmp_path, experiment, "compare=[]")
    assert begun == [0, 1]
    assert weights(resumed) == weights(whole)
    shared = {n: v for n, v in whole.metrics.items() if "world/" not in n}
    assert resumed.metrics == shared


@pytest.mark.slow
def test_facts_are_told_where_the_reward_model_was_told_them(folder: Path, ppo: Artifact) -> None:
    blind = trained(folder, "llava_rlhf_ppo", "lineage.reward=llava_rlhf_rm_no_facts")
    assert blind.lineage["parents"]["reward"]["name"].startswith("llava_rlhf_rm_no_facts-")
    assert blind.metrics["ppo/score"] != ppo.metrics["ppo/score"]


def test_a_reward_model_must_be_one(folder: Path, ppo: Artifact) -> None:
    stage1 = next(folder.glob("dress_stage1-*"))
    with pytest.raises(InputError, match="is not a reward model"):
        trained(folder, "llava_rlhf_ppo", f"reward_from='{stage1}'")
    with pytest.raises(InputError, match="diverged"):
        trained(folder, "grpo", "objective.rollouts.max_unfinished=0.001")
