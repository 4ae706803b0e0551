"""Read the rows of a JSON file one by one: an array, objects one after another, or lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from dress.errors import InputError
from dress.files import not_utf8

_CHARACTER = re.compile(r"[^\s\ufeff]")  # files put together have byte order marks within
Row = tuple[int, Mapping[str, Any]]
_READ = 2**20  # characters at a time
_LONGEST = 2**24  # characters of a row; a file may be of any length


def json_rows(path: Path) -> Iterator[Row]:
    """Yield (number from 1, object) of every row; memory does not grow with their number."""
    with path.open(encoding="utf-8") as file:
        text = _Text(file, path)
        yield from _array(text) if text.starts_with("[") else _objects(text)


def _array(text: _Text) -> Iterator[Row]:
    text.take("[")
    number = 0
    while not text.starts_with("]"):
        if number:
            text.take(",")
        number += 1
        yield number, text.row(number)
    text.take("]")
    if text.starts_with(""):
        raise InputError(f"{text.path} goes on after the end of its array: remove what follows it.")


def _objects(text: _Text) -> Iterator[Row]:
    """JSON lines are objects one after another, as are objects over several lines, or on one."""
    number = 0
    while text.starts_with(""):
        number += 1
        yield number, text.row(number)


class _Text:
    """What was read of a file and not yet used."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self.file, self.path = file, path
        self.text, self.place = "", 0
        self.decoder = json.JSONDecoder()

    def starts_with(self, character: str) -> bool:
        """Skip blanks; at the end of the file nothing starts, not even the empty string."""
        while True:
            begun = _CHARACTER.search(self.text, self.place)  # no copy of what is left
            if begun is not None:
                self.place = begun.start()
                return self.text.startswith(character, self.place)
            if not self._more():
                return False

    def take(self, character: str) -> None:
        if not self.starts_with(character):
            raise InputError(
                f"{self.path} is cut short or no JSON array of objects ({character!r} is "
                "missing): fetch the file again or repair it."
            )
        self.place += 1

    def row(self, number: int) -> Mapping[str, Any]:
        while self.starts_with("{"):
            try:
                row, self.place = self.decoder.raw_decode(self.text, self.place)
                return row
            except (ValueError, RecursionError):
                if len(self.text) - self.place > _LONGEST or not self._more():
                    break
        raise InputError(
            f"{self.path}, row {number}, is not a JSON object of at most {_LONGEST} characters: "
            "repair the row or remove it."
        )

    def _more(self) -> bool:
        try:
            read = self.file.read(_READ)
        except UnicodeDecodeError:
            raise not_utf8(self.path) from None
        self.text, self.place = self.text[self.place :] + read, 0
        return bool(read)


def json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (line number, object) of every line that is not blank."""
    with path.open("rb") as lines:
        for number, data in enumerate(lines, start=1):
            try:
                line = data.decode("utf-8-sig")  # files put together have marks within
            except UnicodeDecodeError:
                raise not_utf8(path) from None
            if line.strip():
                yield number, _parse(line, path, number)


def _parse(line: str, path: Path, number: int) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise InputError(
            f"{path}, line {number}, is not a JSON object: repair the line or remove it."
        )
    return row
