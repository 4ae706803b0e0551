"""What holds for every process that runs tests."""

from __future__ import annotations

import gc
import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from tests.compositions import keep_compositions

# two processes run the tests, so each computes with one thread; set before torch is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

# what a script starts in the background ignores Ctrl-C, and would hand that on to the jobs tested
signal.signal(signal.SIGINT, signal.default_int_handler)

# a busy machine takes longer than any deadline per example, which is no fault of what is tested
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")

ROOT = Path(__file__).resolve().parents[1]

# against a lost power supply, which no test cuts; a write that is waited for takes milliseconds
os.fsync = lambda _: None

keep_compositions()


def pytest_collection_finish() -> None:
    gc.freeze()  # or each collection goes through all that was imported


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run a command as run.py does; return its one sentence, with nothing built."""

    def run_command(*arguments: str) -> str:
        # restored afterwards: what is typed, a variable that is set, and logging as it is
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null"]
        command = ["run.py", *arguments, *quiet, f"paths.artifacts={tmp_path}"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
        (line,) = capsys.readouterr().err.splitlines()
        assert ended.value.code == 1 and line.startswith("error: ") and line[-1] in ".?"
        assert {path.name for path in tmp_path.iterdir()} <= {"hydra"}
        return line

    return run_command
