"""What the data loses is counted once, and shown by reason in every place that shows figures."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from own_data import run_job

from dress.artifact import Artifact
from dress.data.shard_index import ShardIndex
from dress.data.shard_writer import ShardWriter
from dress.errors import InputError
from dress.files import read_lines
from lit_modules.alignment import AlignmentModule
from lit_modules.callbacks.fixed_prompts import with_pictures
from tests.chat.tiny_chat import make_processor, make_sample, picture
from tests.data.nlf_files import nlf_row, write_nlf

ROWS = 12
COMMAND = [
    "experiment=dress_stage2",
    "data=lvlm_nlf",
    "data.max_rejects=3",
    "data.validation_share=0.5",
    "trainer.max_steps=8",
    "trainer.val_check_interval=3",
    "callbacks.train_state.every_n_steps=1",
    "trainer.log_every_n_steps=2",
    "datamodule.groups_per_step=3",  # three epochs
    "callbacks.sample_table.rows=9",
]
EXPECTED = {"data/rejects": 2.0, "data/rejects/too_long": 2.0, "data/read_retries": 0.0}


def run(folder: Path, *overrides: str) -> Artifact:
    rows = [nlf_row(number) for number in range(ROWS)]
    for number in (1, 7):  # by their pictures one of validation, one of training
        rows[number]["interaction"][0]["user"] = "word " * 3000
    write_nlf(folder / "data", rows)
    return run_job(folder, *COMMAND, *overrides)


def about_data(figures: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if name.startswith("data/")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return run(tmp_path_factory.mktemp("whole"), "logger=default")


def test_two_bad_groups_count_twice_whatever_the_epochs(whole: Artifact) -> None:
    assert about_data(whole.metrics) == EXPECTED


def test_the_history_shows_them(whole: Artifact) -> None:
    lines = list(read_lines(whole.path / "metrics.jsonl"))
    shown = {line["step"]: about_data(line) for line in lines if about_data(line)}
    assert {2, 4, 6, 8} <= set(shown) and all(found == EXPECTED for found in shown.values())
    # in the lines of the losses, because the time between lines is taken for that of the steps
    assert all("train/loss" in line or "val/loss" in line for line in lines if about_data(line))


def test_wandb_shows_them(whole: Artifact) -> None:
    (file,) = (whole.path / "wandb").glob("offline-run-*/*.wandb")
    assert b"data/rejects/too_long" in file.read_bytes()


def test_an_interrupted_run_counts_the_same(
    tmp_path: Path, whole: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, steps = AlignmentModule.training_step, []

    def training_step(self: AlignmentModule, batch: Any, batch_idx: int) -> None:
        steps.append(self.global_step)
        if len(steps) in (2, 5):
            os.kill(os.getpid(), signal.SIGINT)
        original(self, batch, batch_idx)

    monkeypatch.setattr(AlignmentModule, "training_step", training_step)
    for _ in range(2):
        with pytest.raises(BaseException, match="interrupted"):
            run(tmp_path)
    assert about_data(run(tmp_path).metrics) == EXPECTED
    assert steps == list(range(8))


def test_a_state_that_was_tampered_with_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def training_step(self: AlignmentModule, batch: Any, batch_idx: int) -> None:
        if self.global_step == 2:
            raise InputError("stopped.")
        original(self, batch, batch_idx)

    original = AlignmentModule.training_step
    monkeypatch.setattr(AlignmentModule, "training_step", training_step)
    with pytest.raises(InputError, match="goes on from the last state"):
        run(tmp_path)
    monkeypatch.undo()
    (state,) = tmp_path.rglob("last.ckpt")
    state.write_bytes(state.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"last\.ckpt is damaged") as error:
        run(tmp_path)
    assert "\n" not in str(error.value) and state.exists()
    state.unlink()
    assert about_data(run(tmp_path).metrics) == EXPECTED


def test_the_table_shows_only_what_can_be_shown(tmp_path: Path) -> None:
    sound = [make_sample(number) for number in range(3)]
    with ShardWriter(tmp_path) as writer:
        writer.write(sound[0])
        writer.write(make_sample(7, images=0))
        writer.write(replace(make_sample(8), images=(picture()[:200],)))
        writer.write(sound[1])
        writer.write(sound[2])
    groups = ShardIndex.open(tmp_path).read_groups(0, 0, 4)
    shown = with_pictures(groups, make_processor())
    assert list(shown) == sound[:2]
