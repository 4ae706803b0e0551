"""Have a judge rate responses, and keep what it said."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dress.errors import InputError, Reject
from dress.evaluation.benchmark import Answered, Judged, Labels
from dress.evaluation.judge import Judge
from dress.files import write_json, write_lines
from dress.fingerprint import canonical_json

JUDGEMENTS, JUDGE = "judgements.jsonl", "judge.json"


def judged_labels(
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
