"""A training job that is interrupted and run again ends with the weights of one that was not."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from dress.artifact import Artifact
from dress.jobs.job import Job
from lit_modules.alignment import AlignmentModule

CONF = Path(__file__).resolve().parents[2] / "conf"
STEPS = 7
COMMAND = [
    "experiment=dress_stage0",
    "logger=local",
    "callbacks=none",
    "data.sizes={captions: 40}",
    "data.validation_share=0.2",
    f"data.steps.stage0={STEPS}",
    "data.groups_per_step.stage0=8",  # steps run past the end of an epoch
    "trainer.val_check_interval=3",
    "callbacks.train_state.every_n_steps=1000",
    "matmul_precision=highest",
    "model.language.config.num_hidden_layers=1",
    "model.vision.config.layers=1",
]


@pytest.fixture(autouse=True)
def configurations() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield
    torch.set_num_threads(threads)


def run(folder: Path) -> Artifact:
    typed = [*COMMAND, f"paths.artifacts={folder}"]
    return Job(cfg=compose("run", typed), overrides=typed).run()


def payload(artifact: Artifact) -> dict[str, bytes]:
    return {
        path.relative_to(artifact.path).as_posix(): path.read_bytes()
        for folder in ("weights", "tokenizer")
        for path in sorted((artifact.path / folder).rglob("*"))
        if path.is_file()
    }


def counting(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> list[int]:
    """Note the step that each training step is, and act before some."""
    steps: list[int] = []
    original = AlignmentModule.training_step

    def training_step(self: AlignmentModule, batch: Any, batch_idx: int) -> None:
        steps.append(self.global_step)
        act(len(steps))
        original(self, batch, batch_idx)

    monkeypatch.setattr(AlignmentModule, "training_step", training_step)
    return steps


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        torch.set_num_threads(1)
        return run(tmp_path_factory.mktemp("whole"))


def test_the_same_command_twice_gives_the_same_bits(tmp_path: Path, whole: Artifact) -> None:
    again = run(tmp_path)
    assert again.name == whole.name and again.path != whole.path
    assert payload(again) == payload(whole)
    assert again.metrics == whole.metrics


@pytest.mark.parametrize("stop", [(2,), (4, 6)], ids=["once", "twice"])
def test_interrupted_and_run_again_it_gives_the_same_bits(
    tmp_path: Path, whole: Artifact, monkeypatch: pytest.MonkeyPatch, stop: tuple[int, ...]
) -> None:
    shards = next(whole.path.parent.glob("dress_captions-*"))
    shutil.copytree(shards, tmp_path / shards.name)
    interrupts = {steps: signal.SIGINT for steps in stop}
    done = counting(
        monkeypatch,
        lambda step: os.kill(os.getpid(), interrupts.pop(step)) if step in interrupts else None,
    )
    for _ in stop:
        with pytest.raises(BaseException) as stopped:
            run(tmp_path)
        assert not isinstance(stopped.value, Exception), stopped.value
        assert not list(tmp_path.glob("dress_stage0-*[0-9a-f]"))
        assert list(tmp_path.glob("dress_stage0-*.partial"))
    resumed = run(tmp_path)
    assert done == list(range(STEPS))  # no step was made twice, none left out
    assert payload(resumed) == payload(whole)
    assert resumed.metrics == whole.metrics
    assert not list(tmp_path.glob("*.partial"))
