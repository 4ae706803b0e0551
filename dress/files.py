"""Files that a crash or a full disk leaves whole: atomic, durable writing; how text is read."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from dress.errors import InputError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # the disk, a quota, the size that a file may have
_RUST = re.compile(r"\(os error (\d+)\)")  # how safetensors and tokenizers report them


def no_space(error: BaseException) -> OSError | None:
    """Return an error as what the system said of a full disk; None where it is another one."""
    if isinstance(error, OSError):
        return error if error.errno in FULL else None
    number = int(match[1]) if (match := _RUST.search(str(error))) else 0
    return OSError(number, os.strerror(number)) if number in FULL else None


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise OSError with the name of `path` where the disk is full, whatever the writer raises."""
    try:
        yield
    except Exception as raised:
        error: BaseException | None = None if isinstance(raised, InputError) else raised
        while error is not None:  # torch wraps the system's error
            if (full := no_space(error)) is not None:
                named = full.filename2 or full.filename or os.fspath(path)
                raise OSError(full.errno, full.strerror, named) from raised
            error = error.__cause__ or error.__context__
        raise


@contextmanager
def replacing(final: Path) -> Iterator[Path]:
    """Yield a path beside `final` to write to, and rename it over `final`; an error leaves none."""
    # not the process id: those of several machines are the same
    temporary = final.with_name(f".{final.name}.{uuid4().hex}.tmp")
    try:
        with naming(final):
            yield temporary
            replace_durably(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_durably(temporary: str | os.PathLike[str], final: str | os.PathLike[str]) -> None:
    """Rename a finished file or directory over `final` so that a crash leaves the old or the new.

    A directory is replaced only where `final` is absent or empty.
    """
    _sync(Path(temporary))
    os.replace(temporary, final)
    _sync_one(Path(final).parent)


def _sync(path: Path) -> None:
    if path.is_dir():
        for child in path.iterdir():
            _sync(child)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def from_home(path: str | os.PathLike[str]) -> str:
    """Put the home folder in the place of a leading `~`; InputError where none is known."""
    expanded = os.path.expanduser(path)
    if expanded.startswith("~/"):
        raise InputError(f"{path} begins with ~, but no home folder is known: give the whole path.")
    return expanded


def public_name(name: str) -> str:
    """Name a model for others: of a folder its last part alone, as paths are nobody's business."""
    path = Path(name)
    is_place = path.is_dir() or path.is_absolute() or name.startswith(("~", "."))
    return path.resolve().name if is_place else name


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_text(path: Path, *, remedy: str = "fetch the file again") -> str:
    """Read UTF-8, with or without a byte order mark; InputError for anything else."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {remedy}.") from None
    except UnicodeDecodeError:
        raise not_utf8(path) from None


def not_utf8(path: Path) -> InputError:
    return InputError(f"{path} is not UTF-8: save it as UTF-8, or fetch it again.")


def text_lines(text: str) -> list[str]:
    r"""Split at `\n` and `\r\n` alone: U+2028, U+0085, `\f` and the like are part of a text."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def is_unicode(text: str) -> bool:
    """Tell whether a text can be written, which half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def remove_unfinished(directory: Path) -> None:
    """Remove what killed writers left in and below a directory that nobody else writes to."""
    for path in list(directory.rglob(".*.tmp")):
        path.unlink()


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one JSON line, first closing a line that a crash cut short."""
    line = json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n"
    with naming(path), path.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            line = line if stream.read(1) == b"\n" else "\n" + line
        stream.write(line.encode())


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole file of JSON lines."""
    lines = (json.dumps(row, allow_nan=False, ensure_ascii=False) for row in rows)
    with naming(path):
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a JSON-lines file, skipping lines that a crash cut short."""
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        with suppress(ValueError):
            yield json.loads(line)


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(read_text(path)) if path.is_file() else {}
