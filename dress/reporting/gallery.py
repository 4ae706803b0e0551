"""A few fixed examples with what every arm responded."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from dress.reporting.columns import Column, Evaluation, Row, labels_of
from dress.reporting.rendering import clipped, picture


@dataclass(frozen=True)
class Reply:
    """One turn: a response and the feedback that followed."""

    text: str
    feedback: str


@dataclass(frozen=True)
class Answer:
    """What one arm said, and what the benchmark counted in it."""

    label: str
    counts: str
    turns: tuple[Reply, ...]


@dataclass(frozen=True)
class Example:
    picture: str | None  # a data URI
    question: str
    truth: str
    task: str
    answers: tuple[Answer, ...]


def gallery(columns: Sequence[Column], *, count: int) -> list[Example]:
    """Choose up to `count` examples, spread over benchmarks and tasks, by the hash of their id."""
    suites = dict.fromkeys(suite for column in columns for suite in column.suites)
    chosen = [_suite_examples(columns, suite, count) for suite in suites]
    return _alternating(chosen)[:count]


def _alternating(lists: Sequence[list[Example]]) -> list[Example]:
    turns = chain.from_iterable(zip_longest(*lists))
    return [example for example in turns if example is not None]


def _suite_examples(columns: Sequence[Column], suite: str, count: int) -> list[Example]:
    """Take turns over tasks; first what most arms have answered."""
    having = {c.label: c.suites[suite] for c in columns if suite in c.suites}
    answers: dict[str, dict[str, list[Row]]] = defaultdict(dict)
    for label, evaluation in having.items():
        for name, rows in _by_id(evaluation).items():
            answers[name][label] = rows
    by_task: dict[str, list[str]] = defaultdict(list)
    for name in sorted(answers, key=lambda name: (-len(answers[name]), _hash(name))):
        by_task[str(_first(answers[name]).get("task", ""))].append(name)
    order = [name for tier in zip_longest(*by_task.values()) for name in tier if name is not None]
    return [_example(having, answers[name]) for name in order[:count]]


def _first(answers: Mapping[str, list[Row]]) -> Row:
    return next(iter(answers.values()))[0]


def _by_id(evaluation: Evaluation) -> dict[str, list[Row]]:
    """Group the turns of each dialogue, first turn first."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in evaluation.rows:
        groups[str(row["id"])].append(row)
    return {name: sorted(rows, key=lambda r: r.get("turn", 0)) for name, rows in groups.items()}


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _example(having: Mapping[str, Evaluation], answers: Mapping[str, list[Row]]) -> Example:
    first = _first(answers)
    return Example(
        picture=picture(having[next(iter(answers))].artifact.path, str(first.get("image", ""))),
        question=clipped(first.get("question")),
        truth=clipped(first.get("answer")),
        task=clipped(first.get("task")),
        answers=tuple(_answer(label, rows) for label, rows in answers.items()),
    )


def _answer(label: str, rows: Sequence[Row]) -> Answer:
    # labels named turn_N/... would be many
    counts = {name: pair for name, pair in labels_of(rows[0]).items() if "/" not in name}
    shown = ", ".join(f"{name} {top:g}/{bottom:g}" for name, (top, bottom) in counts.items())
    return Answer(label, shown, tuple(map(_reply, rows)))


def _reply(row: Row) -> Reply:
    return Reply(clipped(row.get("response")), clipped(row.get("feedback")))
