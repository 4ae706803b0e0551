"""The command line as a user meets it: first line, help, mistakes, signals, W&B, progress."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from hydra import compose, initialize_config_dir

from dress import progress
from dress.artifact import Artifact
from dress.errors import InputError
from dress.files import read_lines
from dress.jobs import checks
from dress.jobs.job import Job
from dress.modeling.devices import PRECISIONS
from tests.processes import Process

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
ENVIRONMENT.pop("HYDRA_FULL_ERROR", None)
LIMIT_S = 120
SMALL = [
    "debug=smoke",
    "logger=local",
    "callbacks=none",
    "data.sizes={captions: 60, instructions: 60, prompts: 60}",
    "data.groups_per_step.stage0=8",
    "data.validation_share=0.1",
]


def start(*arguments: str) -> Process:
    return Process(ROOT / "run.py", arguments, environment=ENVIRONMENT)


def run(*arguments: str) -> tuple[int | None, str, str]:
    process = start(*arguments)
    output, errors = process.communicate(LIMIT_S)
    return process.returncode, output, errors


def wait_for(process: Process, beginning: str) -> None:
    for line in process.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(f"no line {beginning!r}")


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.glob("*") if p.suffix in (".partial", ".lock", ".tmp", ".old")]


def test_the_first_line_comes_before_the_heavy_imports(tmp_path: Path) -> None:
    spy = """
import builtins, runpy, sys
real = print
def spy(text, *rest, **more):
    if text.startswith("dress: job=train"):
        text += f" {sorted({'torch', 'transformers', 'lightning', 'wandb'} & set(sys.modules))}"
    real(text, *rest, **more)
builtins.print = spy
runpy.run_path("run.py", run_name="__main__")
"""
    command = [sys.executable, "-c", spy, f"paths.artifacts={tmp_path}", "parents=bogus"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout == "dress: job=train name=untitled seed=0 []\n"
    assert done.stderr == "error: parents is 'bogus': choose build or require.\n"
    assert done.returncode == 1


def test_help_shows_the_choices() -> None:
    code, output, errors = run("--help")
    assert (code, errors) == (0, "")
    assert output.startswith("DRESS: ") and "powered by Hydra" not in output
    for group in ("experiment", "model", "model/vision", "condition", "objective"):
        options = sorted(p.stem for p in (ROOT / "conf" / group).glob("*.yaml"))
        assert f"\n{group}: {', '.join(options)}\n" in output


@pytest.mark.parametrize("group", ["experiment", "model/vision"])
def test_a_wrong_name_shows_the_choices(tmp_path: Path, group: str) -> None:
    code, _, errors = run(f"{group}=nope", f"paths.artifacts={tmp_path}")
    options = ", ".join(sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml")))
    assert errors == f"error: {group} has no option 'nope': choose one of {options}.\n"
    assert code == 1


@pytest.mark.parametrize("arguments", [["seed=0"], ["-m", "seed=0,1"]])
def test_a_path_that_cannot_be_written(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "file").touch()
    code, output, errors = run(*arguments, f"paths.artifacts={tmp_path}/file/artifacts")
    assert (code, output) == (1, "")
    assert re.fullmatch(r"error: cannot write to .* \(.*\): set paths\.artifacts to .*\n", errors)


@pytest.fixture
def configurations() -> Iterator[None]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


def job(folder: Path, *overrides: str) -> Job:
    overrides = (*SMALL, f"paths.artifacts={folder}", *overrides)
    return Job(cfg=compose("run", list(overrides)), overrides=overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("experiment=dress_stage2 seed=one", "seed is 'one': give a whole number"),
        ("experiment=dress_stage2 seed=true", "seed is True: give a whole number"),
        ("experiment=dress_stage2 trainer.max_steps=-1", "trainer.max_steps is -1"),
        ("experiment=dress_stage2 trainer.precision=16", "choose 32-true or bf16-mixed"),
        ("experiment=dress_stage2 trainer.accelerator=nope", "trainer.accelerator is 'nope'"),
        ("experiment=dress_stage2 optimizer.lr=fast", "optimizer.lr is 'fast': give a number"),
        ("experiment=dress_stage2 condition.target=4/5/4", "condition.target is '4/5/4'"),
        ("experiment=dress_stage2 condition.form=all", "condition.form is 'all'"),
        (
            "experiment=dress_stage2 logger=default logger.wandb.mode=cloud",
            "logger.wandb.mode is 'cloud'",
        ),
        ("experiment=dress_stage2 init_from=/nowhere", "/nowhere does not exist"),
        ("experiment=dress_stage2 parents=require", "is missing and parents=require forbids"),
        ("experiment=dress_feedback feedback.responses=all", "choose sampled or captions"),
        ("job=train", "lineage.init is not set: give experiment=dress_stage2"),
        ("job=evaluate", "artifact is not set"),
        ("job=evaluate artifact=/nowhere", "/nowhere does not exist"),
        ("job=evaluate artifact=conf", "conf is not an artifact"),
        ("job=evaluate artifact=x template=vicuna", "template cannot be given with job=evaluate"),
        (
            "experiment=dress_feedback artifact=x model=tiny",
            "model cannot be given with job=annotate",
        ),
        ("experiment=dress_feedback feedback.parts=2 feedback.part=2", "feedback.part is 2"),
        ("experiment=dress_stage3 interaction.feedback=loud", "interaction.feedback is 'loud'"),
        ("experiment=dress_stage2 generation.contrast=bad", "condition.target is 'bad'"),
        ("experiment=dress_stage2 rounds=0", "rounds is 0"),
        ("job=evaluate artifact=x condition=score", "condition cannot be given with job=evaluate"),
        (
            "experiment=dress_stage0 objective=critique",
            "the objective needs records with feedback",
        ),
    ],
)
@pytest.mark.usefixtures("configurations")
def test_a_mistake_is_one_sentence_before_anything_is_built(
    tmp_path: Path, overrides: str, message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        job(tmp_path, *overrides.split()).run()
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "model.vision.name=nope model.vision.config=null model.vision.random_init=true",
            "open_clip has no model 'nope'",
        ),
        ("model.language.config.model_type=nope", "transformers has no 'nope'"),
        ("model.projector.kind=nope", "model.projector.kind is 'nope'"),
    ],
)
@pytest.mark.usefixtures("configurations")
def test_a_mistake_found_while_building_leaves_nothing_half_made(
    tmp_path: Path, overrides: str, message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        job(tmp_path, "experiment=dress_stage0", *overrides.split()).run()
    assert leftovers(tmp_path) == []


def test_every_precision_offered_is_one_that_the_module_takes() -> None:
    assert get_args(checks.OTHERS["trainer.precision"]) == PRECISIONS


@pytest.mark.usefixtures("configurations")
def test_what_a_build_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = job(tmp_path, "experiment=dress_captions")
    name = captions.run().name
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"building {name} (job=shards)"
    assert re.fullmatch(r"\d+ train and \d+ validation groups", lines[1])
    assert re.fullmatch(rf"{name} done in \d+ s", lines[2])
    captions.run()
    assert capsys.readouterr().out == f"{name} exists (fresh=true builds it again)\n"
    with pytest.raises(InputError, match="holds shards, not a model"):
        job(tmp_path, "job=evaluate", f"artifact={tmp_path / name}").run()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_outside_training_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    command = ["experiment=dress_captions", *SMALL, f"paths.artifacts={tmp_path}"]
    process = start(*command, "data.sizes.captions=100000")
    wait_for(process, "building")
    process.send_signal(number)
    _, errors = process.communicate(LIMIT_S)
    assert process.returncode == 130
    assert errors.splitlines() == [errors.strip()] and errors.startswith("interrupted")
    assert [p.name for p in tmp_path.iterdir()] == ["hydra"]


def test_a_killed_build_is_made_again(tmp_path: Path) -> None:
    command = ["experiment=dress_captions", *SMALL, f"paths.artifacts={tmp_path}"]
    process = start(*command, "data.sizes.captions=1500")
    wait_for(process, "building")
    time.sleep(0.2)
    process.kill()
    process.communicate(LIMIT_S)
    assert len(leftovers(tmp_path)) == 2  # the folder and its lock
    code, output, _ = run(*command, "data.sizes.captions=1500")
    assert code == 0 and leftovers(tmp_path) == []
    sizes = Artifact.open(output.splitlines()[-1].removeprefix("artifact: ")).metrics
    assert sum(sizes.values()) == 1500


@pytest.mark.slow
def test_wandb_offline_keeps_a_run_per_artifact_and_no_secret(tmp_path: Path) -> None:
    secret = "0123456789abcdef" * 3
    small = [o.replace("=none", "=[none,sample_table]") for o in SMALL]
    command = ["experiment=dress_stage0", *small, f"paths.artifacts={tmp_path}", "logger=default"]
    command += ["logger.wandb.mode=offline", "callbacks.sample_table.rows=2"]
    command += ["callbacks.train_state.every_n_steps=1", "trainer.val_check_interval=2"]
    command += ["generation.max_new_tokens=4", "trainer.max_steps=16"]
    environment = ENVIRONMENT | {"WANDB_API_KEY": secret}
    process = Process(ROOT / "run.py", command, environment=environment)
    while not list(tmp_path.glob("*.partial/metrics.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate(LIMIT_S)
    process = Process(ROOT / "run.py", command, environment=environment)
    output, errors = process.communicate(300)
    assert (process.returncode, errors) == (0, "") and "resuming dress_stage0-" in output
    artifact = Artifact.open(output.splitlines()[-1].removeprefix("artifact: "))
    history = list(read_lines(artifact.path / "metrics.jsonl"))
    assert [line for line in history if line.get("resumed_at", 0) >= 1]
    assert history[-1]["step"] == 16
    runs = sorted((artifact.path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 2 and len({path.name for path in runs}) == 1
    assert list((artifact.path / "wandb").rglob("samples_*.table.json"))
    assert list((tmp_path / "wandb/artifacts/staging").iterdir())
    assert leftovers(tmp_path) == []
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if secret.encode() in path.read_bytes()]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_lines_in_a_file_and_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.Bar("sampling", 100) as shown:
        for _ in range(7):
            now += 10.0
            shown.update(10, "loss 1.5")
    assert capsys.readouterr().err.splitlines() == [
        "sampling: 30 of 100 after 30 s, loss 1.5",
        "sampling: 60 of 100 after 60 s, loss 1.5",
    ]
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress.progress("abc", "reading")) == ["a", "b", "c"]
    assert "reading" in terminal.getvalue() and terminal.getvalue().endswith("\r")
