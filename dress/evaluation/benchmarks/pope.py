"""POPE: is a named object in the image? (Li et al. 2023, arXiv 2305.10355; RUCAIBox/POPE)

Each split asks the same 500 images six questions with other absent objects. An answer is read by
the official rule: of the text before the first full stop, without commas and cut at blanks, one of
the words No, not or no means no, everything else yes. What holds neither yes nor no as a word is
also counted as unparsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dress.data.sources.json_rows import json_rows
from dress.errors import InputError
from dress.evaluation.benchmark import Answered, Example, Labels, Ratios
from dress.evaluation.official import all_answered, json_lines, released_id
from dress.evaluation.public import PublicBenchmark, Unanswered, as_id, field, unique
from dress.evaluation.yes_no import QUANTITIES, defined, under, yes_no_labels
from dress.records import Turn

_NO = frozenset(("No", "not", "no"))
_CLEAR = re.compile(r"\b(?:yes|no|not)\b|n't\b", re.IGNORECASE)


class PopeBenchmark(PublicBenchmark):
    """`file` names the questions of a split by the placeholder {split}."""

    name = "pope"
    response_fields = ("response", "answer", "text")

    def __init__(
        self,
        *,
        root: str | None = None,
        file: str = "pope/coco_pope_{split}.json",
        images: str = "coco/val2014",
        splits: Sequence[str] = ("random", "popular", "adversarial"),
        unanswered: Unanswered = "error",
    ) -> None:
        super().__init__(root=root, images=images, unanswered=unanswered)
        once = not isinstance(splits, str) and 0 < len(set(splits)) == len(splits)
        if not once or "{split}" not in file:
            raise InputError(
                f"benchmark.splits is {splits!r} and benchmark.file {file!r}: name each split "
                "once, in brackets, and its place in the file name by {split}."
            )
        self.file, self.splits = file, tuple(map(str, splits))

    def files(self) -> Sequence[str]:
        return [self.file.replace("{split}", split) for split in self.splits]

    def examples(self) -> Iterator[Example]:
        return unique(self._examples())

    def _examples(self) -> Iterator[Example]:
        for split, name in zip(self.splits, self.files(), strict=True):
            path = self.path(name)
            for number, row in json_rows(path):
                where = f"{path}, row {number},"
                image, label = field(row, "image", where), field(row, "label", where)
                if label not in ("yes", "no"):
                    raise InputError(f"{where} has label {label!r}: fetch the file again.")
                yield Example(
                    id=f"{split}/{field(row, 'question_id', where)}",
                    cluster=image,
                    images=(),
                    question=field(row, "text", where),
                    answer=label,
                    annotations={"image": image, "split": split},
                )

    def key(self, row: Mapping[str, Any]) -> str | None:
        only = self.splits[0] if len(self.splits) == 1 else None
        split = row.get("split", only)
        named = split is not None and "question_id" in row
        return f"{split}/{as_id(row['question_id'])}" if named else None

    def labels(self, example: Example, turns: Sequence[Turn]) -> Labels:
        response = turns[-1].model or ""
        counts = yes_no_labels(read_answer(response), example.answer, positive="yes")
        unparsed = {"unparsed": (float(not _CLEAR.search(response)), 1.0)}
        return under(example.annotations["split"], counts) | unparsed

    def metrics(self, ratios: Ratios) -> dict[str, Any]:
        """Report each split, and the plain mean of the splits."""
        figures = defined(ratios)
        splits = [split for split in self.splits if f"{split}/accuracy" in figures]
        for name in QUANTITIES:
            values = [figures[f"{split}/{name}"] for split in splits]
            figures[name] = sum(values) / len(values)
        return {f"pope/{name}": value for name, value in figures.items()}

    def official(self, answered: Sequence[Answered]) -> Mapping[str, str]:
        """Give evaluate.py a file per split; it joins by order."""
        if not all_answered(self, answered):
            return {}
        rows: dict[str, list[dict[str, Any]]] = {}
        for a in answered:
            split, name = a.example.id.split("/", 1)
            row = {"question_id": released_id(name), "question": a.example.question}
            rows.setdefault(split, []).append(row | {"answer": a.response})
        return {f"pope_{split}.jsonl": json_lines(told) for split, told in rows.items()}

    def row(self, example: Example) -> dict[str, Any]:
        return {"split": example.annotations["split"]}


def read_answer(response: str) -> str:
    """Return yes or no by the official rule."""
    words = response.split(".", 1)[0].replace(",", "").split(" ")
    return "no" if _NO & set(words) else "yes"
