"""From answered questions to metrics with intervals, whoever gave the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from dress.evaluation.benchmark import Answered, Benchmark, Joint, Judged, Labels
from dress.evaluation.judge import Judge
from dress.evaluation.judging import judged_labels
from dress.evaluation.official import write_official
from dress.evaluation.statistics import bootstrap, pool
from dress.files import write_lines
from dress.records import Turn

RESPONSES = "responses.jsonl"
UNPARSED = "unparsed.jsonl"
_SHOWN = 5


def score(
    benchmark: Benchmark,
    answered: Sequence[Answered],
    *,
    directory: Path,
    target: str | None = None,
    judge: Judge | None = None,
    on_judged: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Write `responses.jsonl`, `official/` and what a judge said; return metrics and intervals.

    A benchmark that needs a judge and has none gets no metrics: its responses are only saved.
    """
    write_official(benchmark, answered, directory)
    counts: dict[str, float] = {}
    if isinstance(benchmark, Judged):
        if judge is None:
            _write(directory, benchmark, answered, [{} for _ in answered], target)
            return {}
        labels = judged_labels(benchmark, answered, judge, directory, on_judged)
        counts[f"{benchmark.name}/judge_failures"] = float(sum(not row for row in labels))
    else:
        labels = [dict(benchmark.labels(a.example, a.turns)) for a in answered]
    if isinstance(benchmark, Joint):
        joint = benchmark.joint_labels(answered)
        labels = [{**own, **more} for own, more in zip(labels, joint, strict=True)]
    _write(directory, benchmark, answered, labels, target)
    _list_unparsed(directory, answered, labels)
    sums = pool([a.example.cluster for a in answered], labels)
    return bootstrap(sums, benchmark.metrics) | counts


def _list_unparsed(directory: Path, answered: Sequence[Answered], labels: Sequence[Labels]) -> None:
    """Print and write the responses in which the benchmark found no answer."""
    lost = [
        {"id": a.example.id, "response": a.response}
        for a, counts in zip(answered, labels, strict=True)
        if counts.get("unparsed", (0.0, 1.0))[0]
    ]
    if lost:
        write_lines(directory / UNPARSED, lost)
        first = ", ".join(str(row["id"]) for row in lost[:_SHOWN])
        print(f"{len(lost)} of {len(answered)} responses were not understood: {first}", end="")
        print(f" (all in {UNPARSED})" if len(lost) > _SHOWN else "", flush=True)


def _write(
    directory: Path,
    benchmark: Benchmark,
    answered: Sequence[Answered],
    labels: Sequence[Labels],
    target: str | None,
) -> None:
    rows: list[dict[str, Any]] = []
    for a, counts in zip(answered, labels, strict=True):
        shared = {
            "id": a.example.id,
            "cluster": a.example.cluster,
            "image": a.image,
            "question": a.example.question,
            "answer": a.example.answer,
            "condition": target,
            "labels": {name: list(label) for name, label in counts.items()},
            **benchmark.row(a.example),
        }
        rows += [shared | row for row in _turn_rows(a.turns)]
    write_lines(directory / RESPONSES, rows)


def _turn_rows(turns: Sequence[Turn]) -> Iterator[dict[str, Any]]:
    """What differs between the rows of one dialogue; `feedback` is what the user said next."""
    replies = [turn.user for turn in turns[1:]]
    for number, (turn, reply) in enumerate(zip_longest(turns, replies)):
        yield {"turn": number, "response": turn.model, "feedback": reply}
