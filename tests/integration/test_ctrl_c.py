"""Ctrl-C, which a terminal sends to all processes: two lines or one, code 130, no traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.public_files import write_lines
from tests.feedback.llm_server import Answer, LLMServer
from tests.processes import Process

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 120
SMALL = [
    "logger=local",
    "callbacks=none",
    "data.sizes={captions: 60}",
    "data.validation_share=0.2",
    "data.groups_per_step.stage0=8",
    "data.steps.stage0=2000",
    "callbacks.train_state.every_n_steps=1000",
    "model.language.config.num_hidden_layers=1",
    "model.vision.config.layers=1",
]
BETWEEN_STEPS = [
    "stopping after this step; once more to stop at once",
    "interrupted at step N; the same command resumes",
]
AT_ONCE = ["interrupted; nothing half-made is left, the same command goes on from what is done"]


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


def environment() -> dict[str, str]:
    outside = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    return outside | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}


def start(*arguments: str, folder: Path) -> Process:
    """Start it as a group of processes of its own, as a terminal's job is."""
    given = [*arguments, f"paths.artifacts={folder}"]
    return Process(ROOT / "run.py", given, environment=environment(), new_session=True)


def ctrl_c(
    process: Process | subprocess.Popen[str], when: Callable[[], object], delay_s: float
) -> list[str]:
    """Interrupt all its processes once `when()` is true; return what it says, steps as N."""
    began = time.monotonic()
    while not when():
        assert process.poll() is None and time.monotonic() - began < LIMIT_S
        time.sleep(0.01)
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, errors
    return re.sub(r"at step \d+", "at step N", errors).splitlines()


@pytest.mark.parametrize("delay_s", [0.8, slow(0.3), slow(2.0)])
def test_while_it_starts(tmp_path: Path, delay_s: float) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "run.py",
            "experiment=dress_stage0",
            *SMALL,
            f"paths.artifacts={tmp_path}",
        ],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert ctrl_c(process, lambda: True, delay_s) == AT_ONCE
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    "overrides",
    [
        slow(["logger=default", "datamodule.num_workers=2"]),
        [],
        slow(["trainer.devices=2", "datamodule.num_workers=1"]),
        slow(["-m", "seed=0,1"]),
    ],
    ids=["wandb and loaders", "alone", "devices", "sweep"],
)
def test_in_training(tmp_path: Path, overrides: list[str]) -> None:
    command = [*(o for o in overrides if o == "-m"), "experiment=dress_stage0", *SMALL]
    more = [o for o in overrides if o != "-m"]
    process = start(*command, *more, "trainer.log_every_n_steps=1", folder=tmp_path)

    def trains() -> bool:
        return any(f.stat().st_size > 300 for f in tmp_path.glob("*.partial/metrics.jsonl"))

    assert ctrl_c(process, trains, 0.1) == BETWEEN_STEPS
    assert list(tmp_path.glob("dress_stage0-*.partial/scratch/last.ckpt"))


@pytest.mark.parametrize("workers", [2, slow(0)])
def test_in_validation(tmp_path: Path, workers: int) -> None:
    command = ["experiment=dress_stage0", *SMALL, f"datamodule.num_workers={workers}"]
    command += ["data.sizes={captions: 200}", "data.validation_share=0.8"]
    process = start(*command, "trainer.val_check_interval=1", folder=tmp_path)

    def validates() -> bool:
        histories = tmp_path.glob("*.partial/metrics.jsonl")
        return any(b"val/loss" in f.read_bytes() for f in histories)

    lines = ctrl_c(process, validates, 0.3)
    assert lines[0] == BETWEEN_STEPS[0] and len(lines) == 2
    assert lines[1].startswith(("interrupted in the validation at step ", BETWEEN_STEPS[1]))


@pytest.mark.parametrize(("workers", "delay_s"), [(2, 1.0), slow(2, 0.0), slow(0, 0.0)])
def test_while_data_is_made(tmp_path: Path, workers: int, delay_s: float) -> None:
    size = ["data.sizes={captions: 100000}", f"shards.workers={workers}"]
    process = start("experiment=dress_captions", *SMALL, *size, folder=tmp_path)
    assert ctrl_c(process, lambda: list(tmp_path.glob("*.partial")), delay_s) == AT_ONCE


def slowly(body: Mapping[str, Any]) -> Answer:
    return Answer(json.dumps({"relevance": 1, "safety": 1, "persuasiveness": 0}), delay=0.2)


def test_while_a_server_is_asked(tmp_path: Path) -> None:
    rows = [{"image_id": f"{n}.jpg", "caption": "A.", "query": f"Q {n}?"} for n in range(99)]
    write_lines(tmp_path / "examine.jsonl", rows)
    said = [{"image_id": f"{n}.jpg", "response": f"Response {n} ends."} for n in range(99)]
    answers = write_lines(tmp_path / "said.jsonl", said)
    with LLMServer(usual=slowly) as server:
        process = start(
            *("job=evaluate", "benchmark=vlsafe", f"benchmark.root={tmp_path}"),
            *("benchmark.file=examine.jsonl", "benchmark.alignment=null", f"responses={answers}"),
            *("judge=llm", "judge.model=m", f"judge.base_url={server.url}"),
            folder=tmp_path / "artifacts",
        )
        assert ctrl_c(process, lambda: len(server.bodies) > 20, 0.1) == AT_ONCE


@pytest.mark.slow
def test_while_a_model_answers(tmp_path: Path) -> None:
    few = ["data.steps.stage0=2", "benchmark.scenes=2", "interaction.scenes=2"]
    made = start("experiment=dress_stage0", *SMALL, *few, folder=tmp_path)
    _, errors = made.communicate(timeout=LIMIT_S)
    assert made.returncode == 0, errors
    (model,) = tmp_path.glob("dress_stage0-*")
    evaluate = ["job=evaluate", f"artifact={model}", "benchmark.scenes=2000"]
    process = start(*evaluate, "generation.batch_size=4", folder=tmp_path)
    journals = "world_*.partial/scratch/generated.jsonl"
    assert ctrl_c(process, lambda: list(tmp_path.glob(journals)), 0.0) == AT_ONCE
