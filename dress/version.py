"""The version of the code, recorded with everything that it makes."""

from __future__ import annotations

import functools
import importlib.metadata
import subprocess
from contextlib import suppress
from pathlib import Path


@functools.cache
def code_version() -> str:
    """Return the package's version and, in a git checkout, its commit and whether it is edited."""
    version = importlib.metadata.version("dress") if _is_installed() else "0"
    repository = Path(__file__).resolve().parents[1]
    # a git repository further up (a checkout that holds the virtual environment) is not ours
    if _git(repository, "rev-parse", "--show-toplevel") != str(repository):
        return version
    commit = _git(repository, "rev-parse", "--short=12", "HEAD")
    if not commit:
        return version
    dirty = "-dirty" if _git(repository, "status", "--porcelain", "--untracked-files=no") else ""
    return f"{version}+{commit}{dirty}"


def _is_installed() -> bool:
    with suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("dress")
        return True
    return False


def _git(repository: Path, *arguments: str) -> str:
    with suppress(OSError, subprocess.TimeoutExpired):
        command = ["git", "-C", str(repository), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""
