"""MME: two yes-or-no questions about each image, one of each answer (arXiv 2306.13394).

An answer is read by the official rule: in lower case yes or no, or else yes, then no, sought in
the first four characters; what holds neither is wrong and counted as unparsed. acc is over
questions, acc_plus over images with both questions right; a subtask scores 100 acc + 100 acc_plus,
and perception and cognition are sums over their ten and four subtasks.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dress.errors import InputError
from dress.evaluation.benchmark import Answered, Example, Labels, Ratios
from dress.evaluation.public import PublicBenchmark, Unanswered
from dress.files import read_text, text_lines
from dress.records import Turn

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = (
    "commonsense_reasoning",
    "numerical_calculation",
    "text_translation",
    "code_reasoning",
)
_COCO = frozenset(("existence", "count", "position", "color"))  # may share images
_BREAKS = re.compile(r"[\t\r\n]")


class MmeBenchmark(PublicBenchmark):
    """Read `<subtask>.txt` in `folder`; images lie in `images/<subtask>/`."""

    name = "mme"
    response_fields = ("response", "answer", "text")
    key_fields = ("subtask", "image", "question")
    row_fields = ("subtask",)

    def __init__(
        self,
        *,
        root: str | None = None,
        folder: str = "mme",
        images: str = "mme/images",
        subtasks: Sequence[str] = (*PERCEPTION, *COGNITION),
        unanswered: Unanswered = "error",
    ) -> None:
        super().__init__(root=root, images=images, unanswered=unanswered)
        known = (*PERCEPTION, *COGNITION)
        if not subtasks or not set(subtasks) <= set(known) or len(set(subtasks)) < len(subtasks):
            raise InputError(
                f"benchmark.subtasks is {list(subtasks)}: choose from {', '.join(known)}, each "
                "once."
            )
        self.folder, self.subtasks = folder, tuple(subtasks)

    def files(self) -> Sequence[str]:
        return [f"{self.folder}/{subtask}.txt" for subtask in self.subtasks]

    def read_examples(self) -> Iterator[Example]:
        for subtask, name in zip(self.subtasks, self.files(), strict=True):
            path = self.path(name)
            previous = ""
            rows = [cells for _, cells in _rows(path)]
            for place, (image, question, answer, *_) in enumerate(rows):
                if (place % 2 and image != previous) or (place == len(rows) - 1 and not place % 2):
                    raise InputError(
                        f"{path}: {image} has no pair of questions in consecutive lines: fetch "
                        "the released file again."
                    )
                previous = image
                yield Example(
                    id=f"{subtask}/{image}/{question}",
                    cluster=image if subtask in _COCO else f"{subtask}/{image}",
                    images=(),
                    question=question,
                    answer=answer.strip().lower(),
                    annotations={"image": f"{subtask}/{image}", "subtask": subtask},
                )

    def response_rows(self, path: Path) -> Iterator[tuple[Path, int, Mapping[str, Any]]]:
        """Read also what calculation.py reads: `<subtask>.txt`, or the folder that holds them."""
        if path.is_dir():
            files = [path / f"{subtask}.txt" for subtask in self.subtasks]
            files = [file for file in files if file.is_file()]
            if not files:
                raise InputError(
                    f"{path} holds no {self.subtasks[0]}.txt and no file of another of "
                    "benchmark.subtasks: give responses=<the folder of <subtask>.txt, or a file>."
                )
        elif path.suffix == ".txt" and path.stem in (*PERCEPTION, *COGNITION):
            files = [path]
        else:
            yield from super().response_rows(path)
            return
        for file in files:
            for number, (image, question, _, *said) in _rows(file):
                if not said:
                    raise InputError(
                        f"{file}, row {number}, has no answer after its third tab: give the file "
                        "of results and not that of questions."
                    )
                row = {"subtask": file.stem, "image": image, "question": question}
                yield file, number, row | {"answer": said[0]}

    def key(self, row: Mapping[str, Any]) -> str | None:
        """Go by the name of the image without its suffix, which some results give as .txt."""
        name = super().key(row)
        found = self._ids.get(self._place(row)) if name else None
        return found or name

    @cached_property
    def _ids(self) -> Mapping[tuple[str, ...], str]:
        return {
            self._place({**example.annotations, "question": example.question}): example.id
            for example in self.examples()
        }

    def _place(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        return str(row["subtask"]), Path(str(row["image"])).stem, self.spelt(str(row["question"]))

    def labels(self, example: Example, turns: Sequence[Turn]) -> Labels:
        said = read_answer(turns[-1].model or "")
        return {
            f"{example.annotations['subtask']}/acc": (float(said == example.answer), 1.0),
            "unparsed": (float(said is None), 1.0),
        }

    def joint_labels(self, answered: Sequence[Answered]) -> Iterator[Labels]:
        """Count a pair with its last question, and only where both were answered."""
        pairs: dict[str, list[bool]] = defaultdict(list)
        for a in answered:
            pair = pairs[a.example.annotations["image"]]
            pair.append(read_answer(a.response) == a.example.answer)
            name = f"{a.example.annotations['subtask']}/acc_plus"
            yield {name: (float(all(pair)), 1.0)} if len(pair) == 2 else {}

    def metrics(self, ratios: Ratios) -> dict[str, Any]:
        figures = dict(ratios)
        scores: dict[str, Any] = {}
        for subtask in self.subtasks:
            if f"{subtask}/acc_plus" in ratios:
                parts = ratios[f"{subtask}/acc"] + ratios[f"{subtask}/acc_plus"]
                scores[subtask] = 100 * parts
        figures |= {f"{subtask}/score": value for subtask, value in scores.items()}
        for total, subtasks in (("perception", PERCEPTION), ("cognition", COGNITION)):
            if set(subtasks) <= set(scores):
                figures[total] = sum(scores[subtask] for subtask in subtasks)
        return {f"mme/{name}": value for name, value in figures.items()}

    def official(self, answered: Sequence[Answered]) -> Mapping[str, str]:
        """Give calculation.py a file per subtask, each a line per question of whole pairs."""
        pairs: dict[str, list[Answered]] = defaultdict(list)
        for a in answered:
            pairs[a.example.annotations["image"]].append(a)
        texts: dict[str, str] = defaultdict(str)
        for image, pair in pairs.items():
            subtask, name = image.split("/", 1)
            for a in pair if len(pair) == 2 else ():
                said = _BREAKS.sub(" ", a.response)
                parts = (name, a.example.question, a.example.answer.capitalize(), said)
                texts[f"mme/{subtask}.txt"] += "\t".join(parts) + "\n"
        return texts


def read_answer(response: str) -> str | None:
    """Return yes or no by the official rule, None where it finds neither."""
    start = response.lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else None


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of every line: image, question, Yes or No, in results an answer."""
    for number, line in enumerate(text_lines(read_text(path)), start=1):
        if not line.strip():
            continue
        cells = line.split("\t", 3)
        if len(cells) < 3 or not cells[0] or cells[2].strip().lower() not in ("yes", "no"):
            raise InputError(
                f"{path}, line {number}, is not image, question and Yes or No, with tabs between: "
                "fetch the released file again."
            )
        yield number, cells
