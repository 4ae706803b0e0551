"""A forked process is to a test what a fresh interpreter would be."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.processes import Process

SCRIPT = """
import atexit, os, sys
atexit.register(print, "at exit")
print(sorted({"torch", "lightning"} & set(sys.modules)), sys.argv[1:], os.getcwd(), flush=True)
print(os.environ.get("GIVEN"), os.environ.get("PATH"), os.getpgrp() == os.getpid())
print("errors", file=sys.stderr)
if sys.argv[1] == "exit": sys.exit(int(sys.argv[2]))
if sys.argv[1] == "kill": os.kill(os.getpid(), int(sys.argv[2]))
if sys.argv[1] == "fail": raise ValueError("no")
if sys.argv[1] == "write": open("large", "wb").write(bytes(int(sys.argv[2])))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_it_has_its_own_everything(script: Path) -> None:
    environment, folder = {"GIVEN": "yes"}, script.parent
    process = Process(script, ["exit", "7"], environment=environment, cwd=folder, new_session=True)
    assert process.pid != os.getpid()
    assert process.communicate(120) == (
        f"['lightning', 'torch'] ['exit', '7'] {folder}\nyes None True\nat exit\n",
        "errors\n",
    )
    assert process.returncode == process.poll() == process.wait() == 7


@pytest.mark.parametrize(
    ("arguments", "code", "last"),
    [
        (["kill", str(int(signal.SIGKILL))], -signal.SIGKILL, "errors"),
        (["kill", str(int(signal.SIGINT))], -signal.SIGINT, "KeyboardInterrupt"),
        (["fail"], 1, "ValueError: no"),
        (["write", "1000"], 0, "errors"),
        (["write", "9000"], 1, "OSError: [Errno 27] File too large"),
    ],
)
def test_how_it_ends(script: Path, arguments: list[str], code: int, last: str) -> None:
    process = Process(
        script, arguments, environment=os.environ, cwd=script.parent, largest_file=4096
    )
    output, errors = process.communicate(120)
    assert (process.returncode, errors.splitlines()[-1]) == (code, last)
    assert output.endswith("at exit\n") == (code != -signal.SIGKILL)


def test_it_is_killed_and_its_errors_may_go_with_its_output(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys, time; print('begun', file=sys.stderr); time.sleep(60)")
    process = Process(script, [], environment=os.environ, join_errors=True)
    assert process.stdout.readline() == "begun\n"
    assert process.poll() is None
    with pytest.raises(TimeoutError):
        process.wait(0.01)
    process.kill()
    assert process.communicate(120) == ("", "") and process.returncode == -signal.SIGKILL
