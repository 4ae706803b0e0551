"""Read responses that were made elsewhere and find the question that each one answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dress.errors import InputError
from dress.evaluation.benchmark import Answered, Example
from dress.evaluation.public import PublicBenchmark
from dress.files import is_unicode
from dress.records import Turn

_QUESTION_FIELDS = ("question", "query", "prompt", "text")


@dataclass(frozen=True)
class Responses:
    """Answered examples in the order of the benchmark, and the ids of those without a response."""

    answered: tuple[Answered, ...]
    unanswered: tuple[str, ...]
    ignored: int


def read_responses(path: Path, benchmark: PublicBenchmark) -> Responses:
    """Match rows to questions by what names them or, where nothing does, by order and text.

    InputError for a file that cannot be read, a row without a response, a response that is a
    question, an unknown or repeated question, a question that differs, and, unless the benchmark
    skips them, missing responses.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: give responses=<a file of JSON rows>.")
    rows = [_Row(*row) for row in benchmark.response_rows(path)]
    asked = [row for row in rows if not benchmark.ignores(row.record)]
    examples = {example.id: example for example in benchmark.examples()}
    _refuse_questions(asked, examples, benchmark)
    found = _placed(asked, examples, benchmark)
    missing = tuple(name for name in examples if name not in found)
    if missing and (benchmark.unanswered == "error" or not found):
        raise InputError(
            f"{path} lacks responses to {len(missing)} of {len(examples)} questions, first "
            f"{missing[0]}: answer them, or give benchmark.unanswered=skip to leave them out where "
            "only some are missing."
        )
    answered = tuple(
        Answered(example, (Turn(example.question, found[name].response(benchmark)),))
        for name, example in examples.items()
        if name in found
    )
    return Responses(answered, missing, len(rows) - len(asked))


@dataclass(frozen=True)
class _Row:
    path: Path
    number: int
    record: Mapping[str, Any]

    @property
    def where(self) -> str:
        return f"{self.path}, row {self.number},"

    def response_field(self, benchmark: PublicBenchmark) -> str:
        for name in benchmark.response_fields:
            if name in self.record:
                return name
        raise InputError(
            f"{self.where} has no response: call it {' or '.join(benchmark.response_fields)}."
        )

    def response(self, benchmark: PublicBenchmark) -> str:
        name = self.response_field(benchmark)
        value = self.record[name]
        if not isinstance(value, str):
            raise InputError(f"{self.where} has {name} {value!r:.40}: give a text.")
        if not is_unicode(value):
            raise InputError(
                f"{self.where} holds half a surrogate pair in {name}: write the file as UTF-8 anew."
            )
        return value

    def question(self, benchmark: PublicBenchmark) -> str | None:
        response = self.response_field(benchmark)
        texts = (self.record.get(name) for name in _QUESTION_FIELDS if name != response)
        return next((text for text in texts if isinstance(text, str)), None)


def _refuse_questions(
    rows: Sequence[_Row], examples: Mapping[str, Example], benchmark: PublicBenchmark
) -> None:
    """Raise InputError where a response is what was asked, as in a file of questions."""
    questions = {benchmark.spelt(example.question) for example in examples.values()}
    for row in rows:
        if benchmark.spelt(row.response(benchmark)) in questions:
            held = row.response_field(benchmark)
            names = [name for name in benchmark.response_fields if name not in _QUESTION_FIELDS]
            raise InputError(
                f"{row.where} has a question and no answer in {held}: give a file of responses "
                f"that has the answer in {' or '.join(names)}."
            )


def _placed(
    rows: Sequence[_Row], examples: Mapping[str, Example], benchmark: PublicBenchmark
) -> dict[str, _Row]:
    names = [_name(row, examples, benchmark) for row in rows]
    if rows and not any(names):
        return _in_order(rows, examples, benchmark)
    found: dict[str, _Row] = {}
    for row, name in zip(rows, names, strict=True):
        if name is None:
            raise InputError(
                f"{row.where} does not say which question it answers: "
                f"{benchmark.naming(row.record)}."
            )
        if name not in examples:
            raise InputError(
                f"{row.where} answers {name}, which {benchmark.name} does not ask: give the "
                "responses to the questions that the benchmark was told to read."
            )
        if name in found:
            raise InputError(
                f"{row.where} answers {name} again, after row {found[name].number}: remove one."
            )
        question = row.question(benchmark)
        if (
            benchmark.fixed_questions
            and question
            and not _asks(examples[name], question, benchmark)
        ):
            remedy = "give the responses to this very file of questions"
            raise _other_question(row, question, examples[name], remedy)
        found[name] = row
    return found


def _name(row: _Row, examples: Mapping[str, Example], benchmark: PublicBenchmark) -> str | None:
    """Return the benchmark's own key, or else our id; other files number their rows by `id`."""
    key, own = benchmark.key(row.record), str(row.record.get("id"))
    return own if key not in examples and own in examples else key


def _in_order(
    rows: Sequence[_Row], examples: Mapping[str, Example], benchmark: PublicBenchmark
) -> dict[str, _Row]:
    """Match rows that have no id but repeat the questions, as some official scripts write them."""
    for row, example in zip(rows, examples.values(), strict=False):
        question = row.question(benchmark) if benchmark.fixed_questions else None
        if question is None:
            raise InputError(
                f"{row.where} does not say which question it answers and repeats none: "
                f"{benchmark.naming(row.record)}."
            )
        if not _asks(example, question, benchmark):
            raise _other_question(row, question, example, benchmark.naming(row.record))
    if len(rows) != len(examples):
        raise InputError(
            f"{rows[0].path} has {len(rows)} rows that do not say which of {len(examples)} "
            f"questions they answer: {benchmark.naming(rows[0].record)}."
        )
    return dict(zip(examples, rows, strict=True))


def _asks(example: Example, text: str, benchmark: PublicBenchmark) -> bool:
    """Tell whether a prompt holds the question."""
    return benchmark.spelt(example.question) in benchmark.spelt(text)


def _other_question(row: _Row, question: str, example: Example, remedy: str) -> InputError:
    return InputError(
        f"{row.where} answers {question!r:.80}, but {example.id} asks {example.question!r:.80}: "
        f"{remedy}."
    )
