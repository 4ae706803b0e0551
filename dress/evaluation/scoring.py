"""From answered questions to metrics with intervals, whoever gave the answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from dress.errors import InputError, Reject
from dress.evaluation.benchmark import Answered, Benchmark, Bridged, Joint, Judge, Judged, Labels
from dress.evaluation.statistics import bootstrap, pool
from dress.files import write_json, write_lines, write_text
from dress.fingerprint import canonical_json
from dress.records import Turn

RESPONSES, OFFICIAL = "responses.jsonl", "official"
JUDGEMENTS, JUDGE = "judgements.jsonl", "judge.json"
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
    _write_official(benchmark, answered, directory)
    counts: dict[str, float] = {}
    if isinstance(benchmark, Judged):
        if judge is None:
            _write(directory, benchmark, answered, [{} for _ in answered], target)
            return {}
        labels = _judged_labels(benchmark, answered, judge, directory, on_judged)
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


def _judged_labels(
    benchmark: Judged,
    answered: Sequence[Answered],
    judge: Judge,
    directory: Path,
    on_judged: Callable[[int], None] | None,
) -> list[Labels]:
    """Ask the judge about each response; what it said and was told is kept in `directory`."""
    requests = [benchmark.request(a.example, a.response) for a in answered]
    prompts = sorted({request.prompt for request in requests})
    digest = hashlib.sha256(canonical_json(prompts).encode()).hexdigest()
    write_json(directory / JUDGE, {**judge.settings(), "prompt_sha256": digest, "prompts": prompts})
    labels: list[Labels] = []
    rows: list[dict[str, Any]] = []
    failures: list[Reject] = []
    for a, reply in zip(answered, judge.judge(requests), strict=True):
        if isinstance(reply, Reject):
            failures.append(reply.at(where="judge", key=a.example.id))
            rows.append({"id": a.example.id, "failure": str(failures[-1])})
            labels.append({})
        else:
            rows.append({"id": a.example.id, "reply": reply})
            labels.append(benchmark.judged_labels(a.example, reply))
        if on_judged:
            on_judged(1)
    if len(failures) > judge.max_failures or len(failures) == len(answered):
        raise InputError(
            f"the judge failed on {len(failures)} of {len(answered)} responses, first "
            f"{failures[0]}: run again (what was judged is kept) or raise judge.max_failures, "
            "which leaves such responses out and counts them."
        )
    write_lines(directory / JUDGEMENTS, rows)
    return labels


def _write_official(benchmark: Benchmark, answered: Sequence[Answered], directory: Path) -> None:
    if not isinstance(benchmark, Bridged):
        return
    for name, text in benchmark.official(answered).items():
        path = directory / OFFICIAL / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
