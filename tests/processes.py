"""Processes that run a script, forked from one that has imported the heavy libraries.

Importing torch, Lightning, transformers and open_clip takes five seconds of a core, more than most
of the jobs tested, and our own packages and Hydra take one and a half. A process started here has
them from the beginning, and the files of `conf` as they were parsed. Everything else is its own, as
with `python SCRIPT ARGUMENTS`: id, environment, folder, output, signals and exit code. A test about
the imports themselves, or about their order, needs a fresh interpreter instead.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from pathlib import Path
from resource import RLIMIT_FSIZE, setrlimit
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("lightning", "transformers", "peft", "open_clip", "webdataset", "hydra")
OURS = ("dress.assistant", "dress.jobs.fit", "lit_modules.alignment")  # they read no environment
LONGEST_REQUEST = 2**20
RANKS_LIMIT_S = 300


class Process:
    """A process that runs a script; its methods are those of `subprocess.Popen`."""

    def __init__(
        self,
        script: Path,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: Path = ROOT,
        join_errors: bool = False,
        new_session: bool = False,
        largest_file: int | None = None,
    ) -> None:
        pipes = [os.pipe() for _ in range(3)]
        self.stdout, self.stderr, self._report = (_text(reader) for reader, _ in pipes)
        output, errors, report = (writer for _, writer in pipes)
        request = {
            "argv": [str(script), *arguments],
            "environment": dict(environment),
            "cwd": str(cwd),
            "new_session": new_session,
            "largest_file": largest_file,
        }
        ends = [output, output if join_errors else errors, report]
        socket.send_fds(_server(), [json.dumps(request).encode()], ends)
        for _, writer in pipes:
            os.close(writer)
        self.pid = int(self._report.readline())
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._report], [], [], timeout)[0]:
                raise TimeoutError(f"process {self.pid} still runs after {timeout} s")
            self.returncode = int(self._report.readline())
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except TimeoutError:
            return None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read until it and all processes of its own have closed their output; kill what hangs."""
        pool = ThreadPoolExecutor(2)
        try:
            readers = [pool.submit(file.read) for file in (self.stdout, self.stderr)]
            output, errors = (reader.result(timeout) for reader in readers)
            self.wait(timeout)
        except TimeoutError:
            self.kill()
            raise
        finally:
            pool.shutdown(wait=False)
        return output, errors

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run_ranks(script: Path, arguments: Sequence[str], *, world: int) -> None:
    """Run a script to its end in processes that know their rank; one that hangs is an error."""
    ranks = [
        Process(
            script,
            arguments,
            environment=os.environ
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)},
            join_errors=True,
        )
        for rank in range(world)
    ]
    try:
        for process in ranks:
            output, _ = process.communicate(RANKS_LIMIT_S)
            assert process.returncode == 0, output
    finally:
        for process in ranks:
            process.kill()


def _text(descriptor: int) -> TextIO:
    return open(descriptor, encoding="utf-8", errors="replace")


@cache
def _server() -> socket.socket:
    """Start the process from which others are forked; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        number = theirs.fileno()
        subprocess.Popen([sys.executable, __file__, str(number)], cwd=ROOT, pass_fds=[number])
    return ours


def _serve(requests: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return in each process that was asked for, with the request, and once there are no more."""
    sys.modules["wandb"] = None  # type: ignore[assignment]  # timm imports it where it is found
    for name in HEAVY:
        import_module(name)
    del sys.modules["wandb"]  # which makes folders when it is imported, for one process each
    sys.path.insert(0, str(ROOT))
    for name in OURS:
        import_module(name)
    compositions = import_module("tests.compositions")
    compositions.keep_compositions()
    compositions.parse_all()
    os.fsync = lambda _: None  # as in conftest.py
    assert "wandb" not in sys.modules
    gc.freeze()  # or each process would go through all that was imported, and copy it
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: os.waitpid(-1, os.WNOHANG))
    while True:
        text, ends, *_ = socket.recv_fds(requests, LONGEST_REQUEST, 3)
        if not text:
            return None
        if os.fork() == 0:
            break
        for end in ends:
            os.close(end)
    requests.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _supervise(*ends)
    signal.signal(signal.SIGINT, interrupted)
    return json.loads(text), ends[:2]


def _supervise(output: int, errors: int, report: int) -> None:
    """Fork; return in the new process, and report its id and its exit code from this one."""
    if (pid := os.fork()) == 0:
        return os.close(report)
    os.close(output)
    os.close(errors)
    os.write(report, f"{pid}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(report, f"{code}\n".encode())
    os._exit(0)


def _become(request: Mapping[str, Any], ends: Sequence[int]) -> None:
    """Do in the forked process what starting an interpreter does, and run the script."""
    for number, end in enumerate(ends, start=1):
        os.dup2(end, number)
        os.close(end)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1) for number in (1, 2))
    if request["new_session"]:
        os.setsid()
    if (largest := request["largest_file"]) is not None:
        setrlimit(RLIMIT_FSIZE, (largest, largest))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.argv = request["argv"]
    sys.path[:0] = [str(Path(sys.argv[0]).parent), str(ROOT)]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    if asked := _serve(socket.socket(fileno=int(sys.argv[1]))):
        _become(*asked)
