"""POPE: is a named object in the image? (Li et al. 2023, arXiv 2305.10355; RUCAIBox/POPE)

Each split asks the same 500 images six questions with other absent objects. With `answers:
official` an answer is read by the official rule: of the text before the first full stop, without
commas and cut at blanks, one of the words No, not or no means no, everything else yes. Answers
whose first word says otherwise (`**No**` counts as yes) are counted as misread; these, and what
holds neither yes nor no as a word, are also counted as unparsed. With `answers: first_word` the
first word counts, in any case; other answers are wrong and counted as unparsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from dress.errors import InputError
from dress.evaluation.benchmark import Answered, Example, Labels, Ratios
from dress.evaluation.public import (
    QUANTITIES,
    PublicBenchmark,
    Unanswered,
    all_answered,
    defined,
    field,
    first_word,
    json_lines,
    prefixed,
    released_id,
    yes_no_labels,
)
from dress.records import Turn
from dress.settings import checked

Answers = Literal["official", "first_word"]
_NO = frozenset(("No", "not", "no"))
_CLEAR = re.compile(r"\b(?:yes|no|not)\b|n't\b", re.IGNORECASE)


class PopeBenchmark(PublicBenchmark):
    """`file` names the questions of a split by the placeholder {split}."""

    name = "pope"
    response_fields = ("response", "answer", "text")
    key_fields = ("split", "question_id")
    row_fields = ("split",)

    @checked
    def __init__(
        self,
        *,
        root: str | None = None,
        file: str = "pope/coco_pope_{split}.json",
        images: str = "coco/val2014",
        splits: Sequence[str] = ("random", "popular", "adversarial"),
        answers: Answers = "official",
        unanswered: Unanswered = "error",
    ) -> None:
        super().__init__(root=root, images=images, unanswered=unanswered)
        once = not isinstance(splits, str) and 0 < len(set(splits)) == len(splits)
        if not once or "{split}" not in file:
            raise InputError(
                f"benchmark.splits is {splits!r} and benchmark.file {file!r}: name each split "
                "once, in brackets, and its place in the file name by {split}."
            )
        self.file, self.splits, self.answers = file, tuple(map(str, splits)), answers

    def files(self) -> Sequence[str]:
        return [self.file.replace("{split}", split) for split in self.splits]

    def read_examples(self) -> Iterator[Example]:
        for split, name in zip(self.splits, self.files(), strict=True):
            for where, row in self.rows(name):
                image, label = field(row, "image", where), field(row, "label", where)
                if label not in ("yes", "no"):
                    raise InputError(f"{where} has label {label!r}: fetch the file again.")
                yield Example(
                    id=f"{split}/{field(row, 'question_id', where)}",
                    cluster=image,
                    images=(),
                    question=_corrected(field(row, "text", where)),
                    answer=label,
                    annotations={"image": image, "split": split},
                )

    def key(self, row: Mapping[str, Any]) -> str | None:
        return super().key(self._with_split(row))

    def naming(self, row: Mapping[str, Any]) -> str:
        row = self._with_split(row)
        alternative = "" if "split" in row else ", or give benchmark.splits=[<that of the file>]"
        return super().naming(row) + alternative

    def _with_split(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add the split where only one is asked."""
        return {"split": self.splits[0], **row} if len(self.splits) == 1 else row

    def spelt(self, question: str) -> str:
        return super().spelt(_corrected(question))

    def labels(self, example: Example, turns: Sequence[Turn]) -> Labels:
        response = turns[-1].model or ""
        first = first_word(response)
        if self.answers == "official":
            said: str | None = read_answer(response)
            misread = first not in (None, said)
            counted = {"misread": misread, "unparsed": misread or not _CLEAR.search(response)}
        else:
            said, counted = first, {"unparsed": first is None}
        counts = yes_no_labels(said, example.answer, positive="yes")
        shares = {name: (float(found), 1.0) for name, found in counted.items()}
        return prefixed(example.annotations["split"], counts) | shares

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


def read_answer(response: str) -> str:
    """Return yes or no by the official rule."""
    words = response.split(".", 1)[0].replace(",", "").split(" ")
    return "no" if _NO & set(words) else "yes"


def _corrected(question: str) -> str:
    """Undo `imange`, which some copies have where an object begins with a vowel."""
    return question.replace("imange", "image")
