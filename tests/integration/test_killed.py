"""Training that is killed with -9 again and again makes the steps of one that is not."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dress.artifact import Artifact
from dress.files import read_lines
from tests.processes import Process

LIMIT_S = 300
MOST_STEPS = 12  # between two kills, roughly
COMMAND = [
    "experiment=dress_stage0",
    "logger=local",
    "callbacks=none",
    "data.sizes={captions: 60}",
    "data.validation_share=0.2",
    "data.groups_per_step.stage0=8",
    "trainer.val_check_interval=7",
    "callbacks.train_state.every_n_steps=3",
    "trainer.log_every_n_steps=1",
    "matmul_precision=highest",
    "model.language.config.num_hidden_layers=1",
    "model.vision.config.layers=1",
]


@dataclass
class Run:
    """A command in a folder of its own that can be started, killed and started again."""

    folder: Path
    steps: int

    @property
    def notes(self) -> list[dict[str, Any]]:
        return list(read_lines(self.folder / "steps.jsonl"))

    def start(self, *overrides: str, largest: int | None = None) -> Process:
        """Start it; `largest` bounds the bytes of a file, as a disk does that is nearly full."""
        last = [f"data.steps.stage0={self.steps}", f"paths.artifacts={self.folder / 'artifacts'}"]
        return Process(
            Path(__file__).with_name("noting_run.py"),
            [str(self.folder / "steps.jsonl"), *COMMAND, *last, *overrides],
            environment=os.environ | {"OMP_NUM_THREADS": "1"},
            join_errors=True,
            largest_file=largest,
        )

    def finish(self, *overrides: str) -> Artifact:
        process = self.start(*overrides)
        output, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, output
        return Artifact.open(output.strip().splitlines()[-1].removeprefix("artifact: "))

    def kill_after(self, steps: int, delay_s: float, *overrides: str) -> None:
        """Kill a run that has made so many steps more, a moment later."""
        already = len(self.notes)
        process = self.start(*overrides)
        began = time.monotonic()
        while len(self.notes) < already + steps:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() - began < LIMIT_S
            time.sleep(0.005)
        time.sleep(delay_s)
        process.kill()
        process.communicate(timeout=LIMIT_S)  # its workers, which share the pipe, end as well
        assert process.returncode == -9  # not finished before

    def kill_once(self, pattern: str, *overrides: str, largest: int | None = None) -> None:
        """Kill a run as soon as it has made such a file, or see it end on a full disk."""
        artifacts = self.folder / "artifacts"
        before = set(artifacts.glob(pattern))
        process = self.start(*overrides, largest=largest)
        began = time.monotonic()
        while set(artifacts.glob(pattern)) <= before and process.poll() is None:
            assert time.monotonic() - began < LIMIT_S
            time.sleep(0.001)
        process.kill()
        output, _ = process.communicate(timeout=LIMIT_S)
        full = process.returncode == 1 and "cannot be written (File too large)" in output
        assert process.returncode == -9 or (largest and full), output
        assert "Traceback" not in output


def payload(artifact: Artifact) -> dict[str, bytes]:
    files = sorted(path for path in artifact.path.rglob("*") if path.suffix == ".safetensors")
    assert files
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_it_makes_the_same_steps(tmp_path: Path, kills: int) -> None:
    steps = MOST_STEPS * kills
    whole, killed = Run(tmp_path / "whole", steps), Run(tmp_path / "killed", steps)
    for run in (whole, killed):
        run.folder.mkdir()
    expected = whole.finish()
    assert [note["step"] for note in whole.notes] == list(range(steps))
    rng = random.Random(0)
    for number in range(kills):
        after = rng.randrange(0 if number else 4, 6)  # 0: while it is starting
        workers = f"datamodule.num_workers={2 * (number % 2)}"
        killed.kill_after(after, rng.uniform(0, 0.1 if after else 4), workers)
    artifact = killed.finish()
    check(killed, whole, artifact, expected)
    assert len(killed.notes) > steps or kills < 20  # some steps were made again


def check(killed: Run, whole: Run, artifact: Artifact, expected: Artifact) -> None:
    notes = killed.notes
    assert {note["step"] for note in notes} == set(range(whole.steps))  # none was left out,
    assert all(note == whole.notes[note["step"]] for note in notes)  # and each was the same
    assert payload(artifact) == payload(expected)
    assert artifact.metrics == expected.metrics


EVALUATED = [
    "compare=[{label: self, role: self, target: none}]",
    "report.after=true",
    "benchmark.scenes=40",
    "interaction.scenes=4",
    "generation.max_new_tokens=8",
    "generation.batch_size=2",
]
STATE = "dress_stage0-*.partial/scratch/"
MOMENTS: list[tuple[str, int | None]] = [
    ("dress_captions-*.partial/train/*.tar.partial", None),
    (f"{STATE}*", None),
    (f"{STATE}.last.ckpt.*.tmp", None),
    (f"{STATE}no such file", 1_000_000),  # the disk is full when the next state is written,
    (f"{STATE}.last.ckpt.*.tmp", 1_000_000),  # and the process is killed while it writes
    (f"{STATE}.last.ckpt.*.tmp", None),
    ("dress_stage0-*.partial/weights/*", None),
    ("dress_stage0-*.partial/COMPLETE", None),
    ("world_dress_stage0-*.partial/scratch/generated.jsonl", None),
    ("report-*.partial", None),
]


@pytest.mark.slow
def test_killed_at_ten_moments_two_of_them_on_a_full_disk(tmp_path: Path) -> None:
    whole, killed = Run(tmp_path / "whole", 12), Run(tmp_path / "killed", 12)
    for run in (whole, killed):
        run.folder.mkdir()
    expected = whole.finish(*EVALUATED)
    for pattern, largest in MOMENTS:
        killed.kill_once(pattern, *EVALUATED, largest=largest)
    artifact = killed.finish(*EVALUATED)
    check(killed, whole, artifact, expected)
    assert not list(killed.folder.rglob("*.tmp")) and not list(killed.folder.rglob("*.partial"))
