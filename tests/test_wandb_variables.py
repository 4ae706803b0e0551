"""W&B's own variables: they beat our defaults, and the command line beats them."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from dress.errors import InputError
from dress.wandb_mode import wandb_mode
from lit_modules.loggers.weights_and_biases import wandb_run
from tests.integration.wandb_file import records
from tests.processes import Process

KEY = "0123456789" * 4
TRACK = """
import sys
from pathlib import Path
from omegaconf import OmegaConf
from dress.artifact import Artifact
from dress.errors import InputError
from lit_modules.loggers.weights_and_biases import log_evaluations, wandb_logger
node = OmegaConf.load("conf/logger/wandb.yaml").wandb
node.merge_with(OmegaConf.from_cli(sys.argv[2:]))
settings = {"project": node.project, "mode": node.mode}
try:
    for name, is_parent in (("parent", True), ("own", False)):
        folder = Path(sys.argv[1]) / name
        folder.mkdir()
        given = {"directory": folder, "config": {}, "is_parent": is_parent}
        with wandb_logger(**given, **settings) as logger:
            if logger:
                logger.log_metrics({"train/loss": 1.0}, step=1)
        config, lineage = {"trainer": {"max_steps": 1}}, {"name": name}
        artifact = Artifact(folder, config, lineage)
        log_evaluations(artifact, {"world/honesty": 1.0}, is_parent=is_parent, **settings)
except InputError as error:
    sys.exit(f"error: {error}")
"""


@pytest.mark.parametrize(
    ("given", "variables", "expected"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY}, "online"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": ""}, "online"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "dryrun"}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled"}, "disabled"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_DISABLED": "true"}, "disabled"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_DISABLED": "false"}, "online"),
        ("auto", {"WANDB_MODE": "online"}, "online"),
        ("offline", {"WANDB_MODE": "online"}, "offline"),
        ("online", {"WANDB_MODE": "offline", "WANDB_DISABLED": "true"}, "online"),
        ("disabled", {"WANDB_MODE": "online", "WANDB_API_KEY": KEY}, "disabled"),
    ],
)
def test_which_mode(
    monkeypatch: pytest.MonkeyPatch, given: str, variables: Mapping[str, str], expected: str
) -> None:
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wandb_mode(given) == expected


def test_a_mode_that_wandb_does_not_have_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "of-line")
    monkeypatch.delenv("WANDB_DISABLED", raising=False)
    with pytest.raises(InputError, match="WANDB_MODE is 'of-line': set it to online, offline"):
        wandb_mode("auto")


@pytest.fixture
def requests() -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a server that refuses everything, and what it was asked for."""
    seen: list[str] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.path)
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()


def track(folder: Path, *overrides: str, **variables: str) -> tuple[int, str]:
    """Log a parent and the run itself in a process of their own, as W&B reads variables once."""
    outside = {name: v for name, v in os.environ.items() if not name.startswith("WANDB_")}
    script = folder / "track.py"
    script.write_text(TRACK)
    environment = outside | {"WANDB_API_KEY": KEY, "HOME": str(folder)} | variables
    arguments = [str(folder), *overrides]
    process = Process(script, arguments, environment=environment, new_session=True)
    code = process.wait(180)
    with suppress(ProcessLookupError):  # W&B's own process may live on for a while
        os.killpg(process.pid, signal.SIGKILL)
    return code, process.communicate(60)[1]


@pytest.mark.parametrize(
    "variable", ["WANDB_MODE=offline", "WANDB_MODE=disabled", "WANDB_DISABLED=1"]
)
def test_no_request_leaves(tmp_path: Path, requests: tuple[str, list[str]], variable: str) -> None:
    url, seen = requests
    name, _, value = variable.partition("=")
    done = track(tmp_path, WANDB_BASE_URL=url, **{name: value})
    assert (done, seen) == ((0, ""), [])
    kept = len(list(tmp_path.glob("*/wandb/offline-run-*")))
    assert kept == (4 if value == "offline" else 0)  # training and evaluation of both


def test_the_command_line_beats_the_variable(
    tmp_path: Path, requests: tuple[str, list[str]]
) -> None:
    url, seen = requests
    done = track(tmp_path, "mode=online", WANDB_BASE_URL=url, WANDB_MODE="offline")
    assert seen and done[0] == 1 and done[1].startswith("error: W&B failed (")


def test_a_run_is_named_and_kept_as_the_variables_say(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = track(
        tmp_path,
        WANDB_MODE="offline",
        WANDB_DIR=str(elsewhere),
        WANDB_PROJECT="theirs",
        WANDB_ENTITY="us",
        WANDB_NAME="mine",
        WANDB_RUN_ID="id7",
        WANDB_RUN_GROUP="g",
        WANDB_JOB_TYPE="t",
        WANDB_NOTES="n",
        WANDB_TAGS="a,b",
    )
    assert done == (0, "")
    runs = [
        record.run
        for file in sorted(elsewhere.glob("wandb/*/*.wandb"))
        for record in records(file)
        if record.WhichOneof("record_type") == "run"
    ]
    assert {(r.project, r.entity, r.run_group, r.job_type, r.notes) for r in runs} == {
        ("theirs", "us", "g", "t", "n")
    }
    assert all(list(run.tags) == ["a", "b"] for run in runs)
    names = {(run.display_name, run.run_id) for run in runs}
    own, parent = sorted(names, key=lambda pair: pair[0] != "mine")
    assert own == ("mine", "id7") and parent[0] == "parent" and parent[1] != "id7"


def test_a_given_project_beats_the_variable(tmp_path: Path) -> None:
    variables = {"WANDB_MODE": "offline", "WANDB_PROJECT": "theirs"}
    done = track(tmp_path, "project=ours", **variables)
    assert done == (0, "")
    files = list(tmp_path.glob("own/wandb/*/*.wandb"))
    found = {
        r.run.project for f in files for r in records(f) if r.WhichOneof("record_type") == "run"
    }
    assert found == {"ours"}


def test_of_a_trial_in_a_sweep_of_wandb_the_parents_are_no_runs(tmp_path: Path) -> None:
    variables = {"WANDB_MODE": "offline", "WANDB_SWEEP_ID": "abc", "WANDB_RUN_ID": "id7"}
    assert track(tmp_path, **variables) == (0, "")
    files = list(tmp_path.glob("*/wandb/*/*.wandb"))
    assert {file.parents[2].name for file in files} == {"own"}
    runs = [r.run for f in files for r in records(f) if r.WhichOneof("record_type") == "run"]
    assert {(run.run_id, run.sweep_id) for run in runs} == {("id7", "abc")}


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B closes its own log when a run ends, and says only that there is no space left."""

    def finish(*given: Any, **named: Any) -> None:
        closed(*given, **named)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    given: Any = {"identity": "one", "name": "one", "project": "dress", "mode": "offline"}
    with (
        pytest.raises(OSError, match="No space left") as raised,
        wandb_run(directory=tmp_path, config={}, **given) as run,
    ):
        closed = run.finish
        monkeypatch.setattr(run, "finish", finish)
    assert raised.value.filename == str(tmp_path)
