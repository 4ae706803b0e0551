"""The shipped experiments run two steps from a released model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from dress.artifact import Artifact
from dress.errors import InputError
from dress.jobs.job import Job
from dress.modeling.hub.folder import ReleasedWeights
from tests.hub.released_models import KINDS, save_released
from tests.integration.own_data import CONF

SHORT = [
    "data.sizes={captions: 40, instructions: 40, prompts: 24, questions: 8}",
    "data.validation_share=0.2",
    "data.noise=0.5",  # ratings that differ, so that there are pairs
    "data.steps={stage0: 2, stage1: 2, stage2: 2, stage3: 2}",
    "data.groups_per_step={stage0: 4, stage1: 4, stage2: 4, stage3: 4}",
    "feedback.max_new_tokens=6",
    "generation.max_new_tokens=6",
    "optimizer=adamw",
    "compare=[]",
    "logger=local",
]
POLICY = [
    "objective.rollouts.max_new_tokens=6",
    "objective.rollouts.max_unfinished=2",
    "objective.rollouts.epochs=1",
    "datamodule.groups_per_step=3",
    "datamodule.rows_per_batch=1",
]


@pytest.fixture(scope="module", params=KINDS[:2], ids=lambda kind: kind.name)
def released(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield save_released(request.param, tmp_path_factory.mktemp("released") / "model")


def run(released: Path, *overrides: str) -> Artifact:
    typed = ["model=llava_hf", f"model.name={released}", *SHORT, *overrides]
    typed.append(f"paths.artifacts={released.parent / 'artifacts'}")
    return Job(cfg=compose("run", typed), overrides=typed).run()


def check(artifact: Artifact, released: Path) -> None:
    spec = artifact.config["model"]
    assert spec["name"] == str(released) and artifact.config["trainer"]["max_steps"] == 2
    stored = {file.stem for file in (artifact.path / "weights").glob("*.safetensors")}
    assert {"projector", "lora-0"} <= stored and not {"vision", "language"} & stored
    assert artifact.metrics


def run_export(released: Path, artifact: Artifact, form: str = "merged") -> ReleasedWeights:
    typed = ["job=export", f"artifact={artifact.path}", f"export.form={form}"]
    typed.append(f"paths.artifacts={released.parent / 'artifacts'}")
    done = Job(cfg=compose("run", typed), overrides=typed).run()
    return ReleasedWeights(done.path / "model")


def check_adapters(merged: ReleasedWeights, adapter: ReleasedWeights, released: Path) -> None:
    """The adapters of two stages as one: the released weight plus B A is the merged one."""
    base = ReleasedWeights(released)
    name = "layers.1.mlp.down_proj"
    low = f"base_model.model.model.language_model.{name}.lora_"
    down, up = adapter.read(f"{low}A.weight"), adapter.read(f"{low}B.weight")
    assert len(down) == 32  # two of rank 16
    key = f"language_model.model.{name}.weight"
    torch.testing.assert_close(base.read(key) + up @ down, merged.read(key), atol=1e-6, rtol=0)
    assert not torch.equal(base.read(key), merged.read(key))


@pytest.mark.slow
def test_every_experiment_trains_from_it(released: Path) -> None:
    """Stages 0 and 1 from the released model, the others from stage 1 on what it answers."""
    run(released, "experiment=dress_stage0")
    first = run(released, "experiment=dress_stage1", "init_from=pretrained")
    check(first, released)
    begun = f"init_from='{first.path}'"
    for experiment in ("dress_stage2", "sdpo", "silkie_dpo"):
        check(run(released, f"experiment={experiment}", begun), released)
    refined = run(released, "experiment=dress_stage3", begun)
    check(refined, released)
    judge = run(released, "experiment=llava_rlhf_rm", begun)
    check(judge, released)
    check_adapters(
        run_export(released, refined), run_export(released, refined, "adapter"), released
    )
    for experiment in ("llava_rlhf_ppo", "grpo"):
        reward = f"reward_from='{judge.path}'"
        check(run(released, f"experiment={experiment}", begun, reward, *POLICY), released)


def test_random_means_random(released: Path) -> None:
    typed = ["experiment=dress_stage1", "model=llava_hf", f"model.name={released}"]
    typed.append("optimizer=adamw")

    def begun(init_from: str) -> bool:
        cfg = compose("run", [*typed, f"init_from={init_from}"])
        Job(cfg=cfg, overrides=[*typed, f"init_from={init_from}"]).work()
        drawn = {cfg.model.random_init, cfg.model.vision.random_init}
        (whole,) = drawn | {cfg.model.language.random_init}
        return bool(whole)

    assert begun("random") and not begun("pretrained")


def test_a_released_model_has_to_be_named(released: Path) -> None:
    for model, sentence in (
        ("llava_hf", "model.name is null: give model.name=<folder"),
        ("tiny", "template=released reads the chat template of model.name"),
    ):
        typed = ["experiment=dress_stage1", f"model={model}", "template=released"]
        typed += [
            "init_from=pretrained",
            "optimizer=adamw",
            f"paths.artifacts={released.parent / 'none'}",
        ]
        with pytest.raises(InputError, match=sentence):
            Job(cfg=compose("run", typed), overrides=typed).run()
    assert not list(released.parent.glob("none/dress*"))
