"""What benchmarks share that come as public files of questions beside a folder of images."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from dress.data.sources.json_rows import json_rows
from dress.data.sources.photographs import photograph_path, photographs_hash, read_photograph
from dress.errors import InputError
from dress.evaluation.benchmark import Answered, Benchmark, Example, Label, Labels, Ratios
from dress.files import is_unicode
from dress.fingerprint import content_hash
from dress.records import Turn, whole_number
from dress.settings import checked

Unanswered = Literal["error", "skip"]
_HELD = 8  # images; questions about one image stand together
QUANTITIES = ("accuracy", "precision", "recall", "f1", "yes_ratio")
_FIRST = re.compile(r"[\W_]*(yes|no)(?![^\W_])", re.IGNORECASE)


class PublicBenchmark(ABC):
    """Read questions below `root`; images are opened only to generate responses.

    `unanswered` says whether a question without a response, or without an image to generate one
    for, ends the run or is left out and counted. `annotations["image"]` of an example is its file
    below the folder `images`.
    """

    name: str
    response_fields: ClassVar[tuple[str, ...]] = ("response",)
    """Fields of a row that may hold the response; the first one that it has counts."""
    key_fields: ClassVar[tuple[str, ...]] = ("id",)
    """Fields of a row of responses that name its question together."""
    row_fields: ClassVar[tuple[str, ...]] = ()
    """Annotations of an example that stand in its rows of responses.jsonl."""
    fixed_questions: ClassVar[bool] = True
    """Whether a response was made to the question as released, word for word."""

    @checked
    def __init__(self, *, root: str | None, images: str, unanswered: Unanswered) -> None:
        self.root, self.images, self.unanswered = root, images, unanswered
        self._read_photograph = lru_cache(maxsize=_HELD)(_photograph)

    @abstractmethod
    def files(self) -> Sequence[str]:
        """Name the files that are read, as paths below `root`."""
        ...

    @abstractmethod
    def read_examples(self) -> Iterator[Example]:
        """Read the questions, without images; InputError names the file and row of a fault."""
        ...

    def examples(self) -> Iterator[Example]:
        """Yield the questions; InputError at an id that comes twice."""
        seen: set[str] = set()
        for example in self.read_examples():
            if example.id in seen:
                raise InputError(f"{example.id} is asked twice: fetch the released file again.")
            seen.add(example.id)
            yield example

    def rows(self, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield where each row of a file below `root` stands, as messages say it, and the row."""
        path = self.path(name)
        for number, row in json_rows(path):
            yield f"{path}, row {number},", row

    def response_rows(self, path: Path) -> Iterator[tuple[Path, int, Mapping[str, Any]]]:
        """Yield file, number from 1 and fields of every row of responses."""
        if path.is_dir():
            raise InputError(f"{path} is a folder: give responses=<a file of JSON rows>.")
        for number, row in json_rows(path):
            yield path, number, row

    def key(self, row: Mapping[str, Any]) -> str | None:
        """Return the id of the example that a row of responses is about, None if it names none."""
        named = all(name in row for name in self.key_fields)
        return "/".join(as_id(row[name]) for name in self.key_fields) if named else None

    def naming(self, row: Mapping[str, Any]) -> str:
        """Say what to add to a row of responses that names no question."""
        lacking = [name for name in self.key_fields if name not in row]
        return f"add its {' and '.join(lacking or self.key_fields)}"

    def spelt(self, question: str) -> str:
        """Return a question without what differs between copies: blanks, and capitals."""
        return " ".join(question.casefold().split())

    def ignores(self, row: Mapping[str, Any]) -> bool:
        """Tell a row that answers a question of another part of the benchmark."""
        return False

    def labels(self, example: Example, turns: Sequence[Turn]) -> Labels:
        return {}

    def metrics(self, ratios: Ratios) -> dict[str, Any]:
        return {f"{self.name}/{name}": value for name, value in ratios.items()}

    def row(self, example: Example) -> dict[str, Any]:
        return {name: example.annotations[name] for name in self.row_fields}

    def path(self, name: str) -> Path:
        """Return the place of a file below `root`; InputError where there is none."""
        if self.root is None or not Path(self.root).is_dir():
            raise InputError(
                f"benchmark.root is {str(self.root)!r}, which is no directory: give "
                f"benchmark.root=<the folder that holds {name}>."
            )
        path = Path(self.root) / name
        if not path.is_file():
            raise InputError(
                f"{path} does not exist: put the released file there, or correct benchmark.root or "
                "the benchmark's file names."
            )
        return path

    def inputs(self) -> dict[str, str]:
        """Hash every file that is read."""
        return {name: content_hash(self.path(name)) for name in self.files()}

    def image_path(self, example: Example) -> Path:
        folder = Path(self.root or ".") / self.images
        return photograph_path(folder, str(example.annotations["image"]), key=example.id)

    def check_images(self, examples: Sequence[Example]) -> str:
        """Return a hash of the images; InputError where one is absent and none may be."""
        paths = list(dict.fromkeys(self.image_path(example) for example in examples))
        absent = [path for path in paths if not path.is_file()]
        if absent and (self.unanswered == "error" or len(absent) == len(paths)):
            raise InputError(
                f"{len(absent)} of {len(paths)} images are missing, first {absent[0]}: correct "
                "benchmark.images, or give benchmark.unanswered=skip to leave questions out where "
                "only some are."
            )
        return photographs_hash(paths)

    def image(self, example: Example) -> bytes:
        """Read the image of an example; Reject where it cannot be used."""
        return self._read_photograph(self.image_path(example), example.id)


def _photograph(path: Path, key: str) -> bytes:
    return read_photograph(path, key=key)


def field(row: Mapping[str, Any], name: str, where: str) -> str:
    """Return a text of a released row; InputError where it is absent, empty or no Unicode."""
    value = row.get(name)
    typed = isinstance(value, str) or whole_number(value) is not None
    if not typed or not str(value).strip() or not is_unicode(str(value)):
        raise InputError(f"{where} has no {name}: fetch the released file again.")
    return as_id(value)


def as_id(value: object) -> str:
    """Write what was released as text; the number 4.0, which pandas makes of 4, is 4 again."""
    number = whole_number(value) if isinstance(value, float) else None
    return str(value) if number is None else str(number)


def first_word(response: str) -> str | None:
    """Return yes or no where it is the first word, in any case and between any marks."""
    found = _FIRST.match(response)
    return found[1].lower() if found else None


def yes_no_labels(said: str | None, truth: str, *, positive: str) -> dict[str, Label]:
    """Count one answer; `said` is None where it is neither yes nor no, which is never right.

    F1 = 2 TP / (answered positive + truly positive), so that it too is a ratio of sums.
    """
    claimed, is_positive = said == positive, truth == positive
    hit = claimed and is_positive
    return {
        "accuracy": (float(said == truth), 1),
        "precision": (float(hit), float(claimed)),
        "recall": (float(hit), float(is_positive)),
        "f1": (2.0 * hit, float(claimed) + float(is_positive)),
        "yes_ratio": (float(said == "yes"), 1),
    }


def prefixed(prefix: str, labels: Mapping[str, Label]) -> dict[str, Label]:
    return {f"{prefix}/{name}": label for name, label in labels.items()}


def defined(ratios: Ratios) -> dict[str, Any]:
    """Replace what is not defined by 0: precision where nothing was claimed, recall, F1."""
    return {name: np.nan_to_num(value) for name, value in ratios.items()}


def all_answered(benchmark: Benchmark, answered: Sequence[Answered]) -> bool:
    """Whether a script that goes by the order of the rows would join them rightly."""
    return len(answered) == sum(1 for _ in benchmark.examples())


def released_id(name: str) -> int | str:
    """Return an id as released, where it was a number before it was a name."""
    return int(name) if name.isdecimal() else name


def json_array(rows: Iterable[Mapping[str, Any]]) -> str:
    return json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n"


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
