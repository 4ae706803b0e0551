"""Files that a crash leaves whole: atomic and durable writing, JSON lines; and how text is read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dress.errors import InputError


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


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    replace_durably(temporary, path)


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
    """Remove what killed writers of small files left in a directory that nobody else writes to."""
    for path in directory.glob(".*.tmp"):
        path.unlink()


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one JSON line, first closing a line that a crash cut short."""
    line = json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n"
    with path.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            line = line if stream.read(1) == b"\n" else "\n" + line
        stream.write(line.encode())


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole file of JSON lines."""
    lines = (json.dumps(row, allow_nan=False, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a JSON-lines file, skipping lines that a crash cut short."""
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        with suppress(ValueError):
            yield json.loads(line)


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(read_text(path)) if path.is_file() else {}
