"""job=train on several devices: gloo processes that a job, a sweep or torchrun starts."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from dress.artifact import Artifact
from dress.errors import InputError
from dress.files import read_lines
from dress.jobs.job import Job
from tests.processes import Process

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
LIMIT_S = 180
STEPS = 5
STAGE_0 = [
    "experiment=dress_stage0",
    "logger=local",
    "callbacks=none",
    "data.sizes={captions: 40}",
    "data.validation_share=0.2",
    f"data.steps.stage0={STEPS}",
    "data.groups_per_step.stage0=7",  # uneven shares; the last step of a validation has less
    "trainer.val_check_interval=3",
    "callbacks.train_state.every_n_steps=1",
    "trainer.log_every_n_steps=1",
    "matmul_precision=highest",
    "optimizer=adamw",  # Muon amplifies the order of sums, and so does AdamW where a gradient is
    "+optimizer.eps=1.0e-5",  # zero but for rounding, as that of the bias of keys
    "model.language.config.num_hidden_layers=1",
    "model.vision.config.layers=1",
]
SHARDED = ["trainer.devices=2", "trainer.strategy=fsdp"]
ENDLESS = ["data.steps.stage0=100000", "trainer.val_check_interval=100000"]


def start(*arguments: str) -> Process:
    return Process(ROOT / "run.py", [*STAGE_0, *arguments], environment=ENVIRONMENT)


def end(process: Process | subprocess.Popen[str]) -> tuple[int | None, str, str]:
    try:
        output, errors = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    return process.returncode, output, errors


def in_this_process(folder: Path, *overrides: str) -> Artifact:
    typed = [*STAGE_0, f"paths.artifacts={folder}", *overrides]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return Job(cfg=compose("run", typed), overrides=typed).run()
    finally:
        torch.set_num_threads(threads)


def weights(artifact: Artifact) -> dict[str, torch.Tensor]:
    files = sorted((artifact.path / "weights").rglob("*.safetensors"))
    assert files
    return {f"{f.stem}/{name}": value for f in files for name, value in load_file(f).items()}


def same_run(one: Artifact, other: Artifact) -> None:
    """Compare figures and weights; the sums over ranks are in another order."""
    assert one.name == other.name
    assert other.metrics == pytest.approx(one.metrics, rel=1e-4)
    for name, value in weights(one).items():
        assert (weights(other)[name] - value).norm() <= 1e-5 * value.norm()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return in_this_process(tmp_path_factory.mktemp("alone"))


@pytest.mark.slow
def test_a_sweep_of_two_jobs_of_two_processes(tmp_path: Path, alone: Artifact) -> None:
    artifacts = f"paths.artifacts={tmp_path}"
    code, output, errors = end(start("-m", "seed=0,1", "trainer.devices=2", artifacts))
    assert (code, errors) == (0, "")
    built = re.findall(r"^artifact: (.*)$", output, re.MULTILINE)
    assert len(set(built)) == 2
    same_run(alone, Artifact.open(built[0]))
    assert len(list(tmp_path.glob("dress_captions-*"))) == 2
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".partial", ".lock")]
    # Hydra's own folders: one for the sweep, one in it for each job, and none anywhere else
    (sweep,) = (tmp_path / "hydra" / "multirun").glob("*/*")
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1"]
    hydras = sorted(tmp_path.rglob(".hydra"))
    assert hydras == [sweep / "0" / ".hydra", sweep / "1" / ".hydra"]
    assert [path.name for path in (tmp_path / "hydra").iterdir()] == ["multirun"]


def ranks_of(process: Process) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def wait_for_steps(folder: Path, number: int, process: Process) -> None:
    began = time.monotonic()
    while time.monotonic() - began < LIMIT_S:
        histories = folder.glob("dress_stage0-*.partial/metrics.jsonl")
        if sum("train/loss" in line for file in histories for line in read_lines(file)) >= number:
            return
        assert process.poll() is None, end(process)
        time.sleep(0.1)
    raise AssertionError("no step was made")


@pytest.mark.slow
def test_interrupted_on_two_devices_it_goes_on_on_one(tmp_path: Path, alone: Artifact) -> None:
    process = start("trainer.devices=2", f"paths.artifacts={tmp_path}")
    wait_for_steps(tmp_path, 1, process)
    process.send_signal(signal.SIGINT)
    code, _, errors = end(process)
    assert code == 130 and "the same command resumes" in errors and "Traceback" not in errors
    same_run(alone, in_this_process(tmp_path))


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_job_and_a_killed_job_its_ranks(tmp_path: Path) -> None:
    endless = [f"paths.artifacts={tmp_path}", "trainer.devices=2", *ENDLESS]
    process = start(*endless)
    wait_for_steps(tmp_path, 2, process)
    first, second = ranks_of(process)
    os.kill(max(first, second), signal.SIGKILL)
    code, _, errors = end(process)
    assert code == 1
    assert "ended with code -9" in errors and "the same command goes on" in errors
    process = start(*endless)
    wait_for_steps(tmp_path, 4, process)
    ranks = ranks_of(process)
    process.kill()
    process.communicate(timeout=LIMIT_S)
    began = time.monotonic()
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        assert time.monotonic() - began < 60, "a rank outlived its job"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("then", [SHARDED, SHARDED[:1], []], ids=["fsdp", "ddp", "alone"])
def test_a_sharded_run_that_lost_a_rank_goes_on(
    tmp_path: Path, alone: Artifact, then: list[str]
) -> None:
    artifacts = f"paths.artifacts={tmp_path}"
    process = start(*SHARDED, artifacts)
    wait_for_steps(tmp_path, 2, process)
    os.kill(max(ranks_of(process)), signal.SIGKILL)
    code, _, errors = end(process)
    assert code == 1 and "the same command goes on" in errors
    code, output, errors = end(start(*then, artifacts))
    assert (code, errors) == (0, "")
    (built,) = re.findall(r"^artifact: (.*)$", output, re.MULTILINE)
    same_run(alone, Artifact.open(built))


@pytest.mark.slow  # test_evaluation_on_devices.py has a rank that fails while it answers
def test_what_one_rank_finds_is_one_sentence(tmp_path: Path) -> None:
    typed = [f"paths.artifacts={tmp_path}", "trainer.devices=2", "model.max_length=20"]
    code, _, errors = end(start(*typed))
    assert code == 1
    (line,) = errors.strip().splitlines()
    assert line.startswith("error: ") and "too long" in line


def of_torchrun(host: int) -> dict[str, str]:
    ranks = {"RANK": str(host), "GROUP_RANK": str(host), "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    return ranks | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}


def of_srun(host: int) -> dict[str, str]:
    found = {"STEP_NUM_TASKS": 2, "NTASKS": 2, "PROCID": host, "NODEID": host, "LOCALID": 0}
    found |= {"NTASKS_PER_NODE": 1, "NODELIST": "127.0.0.1", "JOB_ID": 10000 + os.getpid() % 1000}
    return {f"SLURM_{name}": str(value) for name, value in found.items()}


@cache
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.parametrize(
    "environment", [of_torchrun, pytest.param(of_srun, marks=pytest.mark.slow)]
)
def test_hosts_build_the_parents_and_equal_one_process(
    environment: Callable[[int], dict[str, str]], tmp_path: Path, alone: Artifact
) -> None:
    typed = [*STAGE_0, f"paths.artifacts={tmp_path}", "trainer.num_nodes=2"]
    processes = [
        Process(ROOT / "run.py", typed, environment=ENVIRONMENT | environment(host))
        for host in range(2)
    ]
    (code, output, errors), (other, _, others) = map(end, processes)
    assert (code, other) == (0, 0), errors + others
    (path,) = re.findall(r"^artifact: (.*)$", output, re.MULTILINE)
    same_run(alone, Artifact.open(path))
    assert {*os.listdir(alone.path.parent)} <= {*os.listdir(tmp_path)}


def torchrun(*overrides: str) -> tuple[int | None, str, str]:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "run.py"]
    process = subprocess.Popen(
        [sys.executable, *launcher, *STAGE_0, *overrides],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return end(process)


@pytest.mark.slow
def test_torchrun_trains_together(tmp_path: Path, alone: Artifact) -> None:
    typed = [f"paths.artifacts={tmp_path}", "trainer.devices=2"]
    code, _, errors = torchrun(*typed, "parents=require")
    assert code == 1 and "parents=require forbids to build it" in errors
    code, output, errors = torchrun(*typed)
    assert code == 0, errors
    (path,) = re.findall(r"^artifact: (.*)$", output, re.MULTILINE)
    same_run(alone, Artifact.open(path))
    code, output, errors = torchrun(*typed)
    assert code == 0 and "exists (fresh=true builds it again)" in output, errors


@pytest.mark.parametrize("is_parent", [False, True])
def test_the_others_are_let_go_once(
    monkeypatch: pytest.MonkeyPatch, alone: Artifact, is_parent: bool
) -> None:
    """After what they were started for, and not after a parent of it."""
    sent: list[object] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("dress.jobs.hosts.meeting", lambda: None)
    monkeypatch.setattr("dress.jobs.hosts.let_go", lambda: sent.append(None))
    typed = [*STAGE_0, f"paths.artifacts={alone.path.parent}", "trainer.devices=2"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        Job(cfg=compose("run", typed), overrides=typed, is_parent=is_parent).run()
    assert sent == ([] if is_parent else [None])


@pytest.mark.parametrize(
    ("overrides", "processes", "message"),
    [
        (["trainer.devices=8"], 1, "at least one group per step"),
        (["trainer.devices=0"], 1, "1 or more"),
        (["trainer.devices=auto"], 1, "1 or more"),
        (["trainer.devices=1"], 2, "2 processes were started"),
        (["trainer.num_nodes=2"], 1, "trainer.num_nodes is 2 and one process was started"),
        (["trainer.devices=4", "trainer.num_nodes=2"], 8, r"devices \* num_nodes is 8"),
        (["trainer.devices=2", "job=evaluate", "artifact=x"], 2, "for job=train"),
        (["trainer.strategy=fdsp"], 1, "trainer.strategy is 'fdsp': choose auto or ddp or"),
        (["trainer.strategy=fsdp"], 1, "among ranks: give trainer.devices=2 or more."),
    ],
)
def test_impossible_numbers_are_refused_before_anything_is_built(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    processes: int,
    message: str,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with pytest.raises(InputError, match=message):
        in_this_process(tmp_path, *overrides)
    assert list(tmp_path.iterdir()) == []
