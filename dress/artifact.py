"""Artifacts: directories that appear whole or not at all and record what they were made from."""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from dress.artifact_files import LINEAGE, MARKER, read_artifact, read_metrics, write_config
from dress.errors import InputError
from dress.files import (
    from_home,
    read_json,
    remove_unfinished,
    replace_durably,
    write_json,
)
from dress.fingerprint import artifact_name, content_hash, fingerprint
from dress.version import code_version

METRICS, HISTORY = "metrics.json", "metrics.jsonl"
SCRATCH = "scratch"  # what only an unfinished build needs; never part of the artifact
BUILDER = "builder.json"  # who is building; tells a waiting process the pid
METRICS_LOCK = ".metrics.lock"
# W&B's process still writes its log when a run has ended, and `wandb clean` deletes what is synced
UNCHECKED_FOLDERS = {SCRATCH, "wandb"}
NOT_PAYLOAD = {MARKER, METRICS, METRICS_LOCK, BUILDER}

__all__ = [
    "LINEAGE",
    "MARKER",
    "Artifact",
    "ArtifactStore",
    "Building",
    "artifact_name",
    "content_hash",
    "fingerprint",
]

logger = logging.getLogger(__name__)


class Parent(Protocol):
    """What something was made from."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


def check_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return `metrics` as plain numbers; names read `stage/quantity`."""
    for name, value in metrics.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise InputError(f"metric {name!r} is {value!r}: report finite numbers only")
        if not re.fullmatch(r"[^/]+(/[^/]+)+", name):
            raise InputError(f"metric {name!r} has no stage: call it stage/quantity")
    return dict(metrics)


@dataclass(frozen=True)
class Artifact:
    """A complete artifact on disk."""

    path: Path
    config: Mapping[str, Any]
    lineage: Mapping[str, Any]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Artifact:
        """Read an artifact; InputError if it is missing, unfinished, truncated or another thing."""
        path = Path(from_home(path))
        if not (path / MARKER).is_file():
            raise InputError(_why_no_artifact(path))
        config, lineage = read_artifact(path)
        return cls(path=path, config=config, lineage=lineage)

    @property
    def name(self) -> str:
        return self.lineage["name"]

    @property
    def fingerprint(self) -> str:
        return self.lineage["fingerprint"]

    @property
    def location(self) -> str:
        return str(self.path)

    @property
    def metrics(self) -> dict[str, float]:
        return read_metrics(self.path / METRICS)

    def update_metrics(self, metrics: Mapping[str, float]) -> None:
        """Add figures to a finished artifact, such as those of an evaluation."""
        checked = check_metrics(metrics)
        with FileLock(self.path / METRICS_LOCK):
            write_json(self.path / METRICS, self.metrics | checked)


def _why_no_artifact(path: Path) -> str:
    if not path.is_dir():
        partial = path.with_name(f"{path.name}.partial")
        if partial.is_dir():
            return f"{path} is not finished: run the command that builds it again to resume it"
        return f"{path} does not exist: build it first or give the path of another artifact"
    if (path / LINEAGE).is_file():
        return f"{path} is not finished (no file {MARKER}): copy or build it again"
    return f"{path} is not an artifact (no file {MARKER}): give the folder of a finished build"


@dataclass
class Building:
    """An artifact under construction; where `reused` is true there is nothing to do."""

    path: Path
    reused: bool = False
    resuming: bool = False
    artifact: Artifact = None  # type: ignore[assignment] # set where reused, and once it is built

    @property
    def scratch(self) -> Path:
        """Folder for what helps to resume and is not to be kept."""
        folder = self.path / SCRATCH
        folder.mkdir(exist_ok=True)
        return folder

    def write_metrics(self, metrics: Mapping[str, float]) -> None:
        """Add final figures."""
        assert not self.reused
        write_json(self.path / METRICS, read_json(self.path / METRICS) | check_metrics(metrics))


@dataclass(frozen=True)
class ArtifactStore:
    """The folder of all artifacts. Only one process builds an artifact; the others wait for it."""

    root: Path

    def find(self, name: str) -> Artifact | None:
        """Return a complete artifact; a damaged one counts as absent."""
        path = self.root / name
        if not (path / MARKER).is_file():
            return None
        try:
            return Artifact.open(path)
        except InputError as error:
            logger.warning("not used: %s", error)
            return None

    def partial(self, name: str) -> Path:
        return self.root / f"{name}.partial"

    @contextmanager
    def build(
        self,
        name: str,
        *,
        kind: str,
        config: Mapping[str, Any],
        fingerprint: str,
        parents: Mapping[str, Parent],
        inputs: Mapping[str, str],
        fresh: bool = False,
        keep_partial: bool = False,
    ) -> Iterator[Building]:
        """Yield a folder to fill and publish it when the block ends without an error.

        `keep_partial` leaves the folder of a failed build for the next attempt to resume, provided
        that its scratch folder holds something to resume from. In a distributed run only one
        process may call this: the others would wait for it for ever.
        """
        lineage = {
            "name": name,
            "kind": kind,
            "fingerprint": fingerprint,
            "parents": {
                role: {"name": parent.name, "fingerprint": parent.fingerprint}
                for role, parent in parents.items()
            },
            "inputs": dict(inputs),
            "code_version": code_version(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with self._lock(name):
            if (existing := self._reusable(name, fresh=fresh)) is not None:
                _warn_of_other_code(existing.lineage)
                yield Building(path=existing.path, reused=True, artifact=existing)
                return
            building = self._start(name, fresh=fresh, keep_partial=keep_partial)
            try:
                write_json(building.path / LINEAGE, lineage)
                write_config(building.path, config)
                yield building
                building.artifact = self._publish(name)
            except BaseException:
                if not (keep_partial and any((self.partial(name) / SCRATCH).glob("*"))):
                    shutil.rmtree(self.partial(name), ignore_errors=True)
                raise

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        path = self.root / f"{name}.lock"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                logger.warning("waiting for %s, built by %s", name, self._builder(name))
                lock.acquire(poll_interval=0.2)
        except OSError as error:
            raise InputError(
                f"cannot write to {self.root} ({error.strerror}): set paths.artifacts to a folder "
                "that you may write to"
            ) from error
        try:
            yield
        finally:
            # while still holding it; who waits for the old file notices and opens a new one
            path.unlink(missing_ok=True)
            lock.release()

    def _builder(self, name: str) -> str:
        with suppress(OSError, ValueError, KeyError):
            builder = read_json(self.partial(name) / BUILDER)
            return f"pid {builder['pid']} on {builder['host']}"
        return "another process"

    def _reusable(self, name: str, *, fresh: bool) -> Artifact | None:
        if fresh:
            return None
        if (existing := self.find(name)) is not None:
            return existing
        # a crash between the marker and the renaming leaves a finished .partial
        if self.find(f"{name}.partial") is not None:
            return self._publish(name)
        return None

    def _start(self, name: str, *, fresh: bool, keep_partial: bool) -> Building:
        partial = self.partial(name)
        resuming = partial.is_dir() and keep_partial
        # a fresh build resumes what an interrupted fresh build left, nothing else
        if fresh and not read_json(partial / BUILDER).get("fresh", False):
            resuming = False
        if resuming:
            (partial / MARKER).unlink(missing_ok=True)
            remove_unfinished(partial)
            _warn_of_other_code(read_json(partial / LINEAGE))
        elif partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        who = {"pid": os.getpid(), "host": socket.gethostname(), "fresh": fresh}
        write_json(partial / BUILDER, who)
        return Building(path=partial, resuming=resuming)

    def _publish(self, name: str) -> Artifact:
        partial, final, old = self.partial(name), self.root / name, self.root / f"{name}.old"
        sizes = {
            file.relative_to(partial).as_posix(): file.stat().st_size
            for file in sorted(partial.rglob("*"))
            if file.is_file() and not _is_unchecked(file.relative_to(partial))
        }
        write_json(partial / MARKER, {"files": sizes})
        if old.exists():
            shutil.rmtree(old)
        if final.exists():
            os.replace(final, old)
        replace_durably(partial, final)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(final / SCRATCH, ignore_errors=True)
        (final / BUILDER).unlink(missing_ok=True)
        return Artifact.open(final)


def _is_unchecked(file: Path) -> bool:
    return file.parts[0] in UNCHECKED_FOLDERS or file.name in NOT_PAYLOAD or file.suffix == ".tmp"


def _warn_of_other_code(lineage: Mapping[str, Any]) -> None:
    made_by = lineage.get("code_version", "an unknown version")
    if made_by != (own := code_version()):
        text = "%s was made by code %s, this is %s (fresh=true builds it again)"
        logger.warning(text, lineage.get("name"), made_by, own)
