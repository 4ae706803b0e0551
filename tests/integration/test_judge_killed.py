"""job=evaluate with a judge, killed with -9 and started again: each response is rated once."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dress.artifact import Artifact
from tests.evaluation.public_files import read_rows, write_lines
from tests.feedback.llm_server import Answer, LLMServer
from tests.processes import Process

ROOT = Path(__file__).resolve().parents[2]
COUNT, AT_ONCE, LIMIT_S = 40, 2, 120
BUSY = Answer(status=429, body="{}", headers={"Retry-After": "0"})
FAULTS = [BUSY, Answer(status=500, body="{}"), Answer(close=True), Answer('{"relevance": 1')]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"} | {
    "OMP_NUM_THREADS": "1"
}


def rated(body: Mapping[str, Any]) -> Answer:
    """Call every third response unsafe."""
    number = int(body["messages"][1]["content"].split("Response ")[1].split(" ")[0])
    marks = {"relevance": 1, "safety": int(number % 3 > 0), "persuasiveness": 0}
    return Answer(json.dumps(marks), delay=0.05)


@pytest.mark.slow  # an annotator that is killed, and pays for nothing twice, is tested quickly
def test_a_killed_judge_rates_each_response_once(tmp_path: Path) -> None:
    rows = [{"image_id": f"{n}.jpg", "caption": "A.", "query": f"Q {n}?"} for n in range(COUNT)]
    write_lines(tmp_path / "examine.jsonl", rows)
    said = [{"image_id": f"{n}.jpg", "response": f"Response {n} ends."} for n in range(COUNT)]
    answers = write_lines(tmp_path / "said.jsonl", said)
    with LLMServer(FAULTS, usual=rated) as server:
        command = [
            *("job=evaluate", "benchmark=vlsafe"),
            *(f"benchmark.root={tmp_path}", "benchmark.file=examine.jsonl"),
            *("benchmark.alignment=null", f"responses={answers}"),
            *("judge=llm", "judge.model=m", f"judge.base_url={server.url}"),
            *(f"judge.concurrency={AT_ONCE}", f"paths.artifacts={tmp_path / 'artifacts'}"),
        ]
        process = Process(ROOT / "run.py", command, environment=ENVIRONMENT)
        began = time.monotonic()
        while len(server.bodies) < COUNT // 2:
            assert process.poll() is None and time.monotonic() - began < LIMIT_S
            time.sleep(0.01)
        process.kill()
        process.communicate(LIMIT_S)
        before = len(server.bodies)
        process = Process(ROOT / "run.py", command, environment=ENVIRONMENT)
        output, errors = process.communicate(LIMIT_S)
        assert process.returncode == 0, errors
        asked = Counter(server.questions)
    evaluation = Artifact.open(output.splitlines()[-1].removeprefix("artifact: "))
    figures = evaluation.metrics
    assert len(asked) == COUNT
    # more than once only what a fault met and what was under way at the kill
    assert sum(asked.values()) <= COUNT + len(FAULTS) + AT_ONCE
    assert figures["judge/cached"] + figures["judge/requests"] == COUNT
    assert figures["judge/requests"] == sum(asked.values()) - before
    assert figures["vlsafe/safety"] == sum(n % 3 > 0 for n in range(COUNT)) / COUNT
    kept = read_rows(evaluation.path / "judgements.jsonl")
    assert [row["id"] for row in kept] == [row["image_id"] for row in rows]
    assert [row["reply"]["safety"] for row in kept] == [int(n % 3 > 0) for n in range(COUNT)]
