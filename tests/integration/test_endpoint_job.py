"""job=annotate and job=evaluate on the responses of a model behind a server."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from dress.artifact import Artifact
from dress.data.shard_index import read_all
from dress.errors import InputError, Reject
from dress.jobs.job import Job
from dress.records import Sample
from tests.data.coco_files import write_coco
from tests.evaluation.public_files import read_rows, write_lines
from tests.feedback.llm_server import Answer, LLMServer
from tests.processes import ROOT, Process

PROMPTS, DRAWS, AT_ONCE, LIMIT_S = 20, 2, 4, 120
WORLD = [
    f"data.sizes={{captions: 40, instructions: 40, prompts: {PROMPTS}}}",
    "data.validation_share=0.1",
    "data.noise=0",
    "sampler=endpoint",
    "sampler.model=peer",
    f"sampler.concurrency={AT_ONCE}",
]
DIALOGUES = ["experiment=dress_refinements", "feedback.turns=3", "feedback.candidates=2"]
SINGLE = ["experiment=dress_feedback"]
BUSY = Answer(status=429, body="{}", headers={"Retry-After": "0"})
FAULTS = [BUSY, Answer(status=500, body="{}"), Answer(close=True)]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def saying(body: Mapping[str, Any]) -> Answer:
    """Answer as a function of what was asked and of the seed, often wrong."""
    asked = json.dumps(body, sort_keys=True)
    words = ("red", "blue", "green"), ("circle", "square", "triangle")
    colour, shape = (kinds[sum(asked.encode()) % len(kinds)] for kinds in words)
    return Answer(f"There is a {colour} {shape}.", delay=0.03)


def run_job(tmp_path: Path, *overrides: str) -> Artifact:
    """Run a job in this process, as run.py does."""
    typed = [f"paths.artifacts={tmp_path}", *overrides]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return Job(cfg=compose("run", overrides=typed), overrides=typed).run()


def groups(artifact: Artifact) -> dict[str, Sample]:
    stored = [s for split in ("train", "validation") for s in read_all(artifact.path / split)]
    return {sample.id: sample for sample in stored}


def start(folder: Path, server: LLMServer, *overrides: str) -> Process:
    given = [f"paths.artifacts={folder}", f"sampler.base_url={server.url}", "logger=local"]
    environment = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
    return Process(
        ROOT / "run.py",
        [*WORLD, *given, *overrides],
        environment=environment | {"OMP_NUM_THREADS": "1"},
        join_errors=True,
    )


def finish(process: Process) -> Artifact:
    output, _ = process.communicate(LIMIT_S)
    assert process.returncode == 0, output
    return Artifact.open(output.strip().splitlines()[-1].removeprefix("artifact: "))


def kill_when(process: Process, reached: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not reached():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() - began < LIMIT_S
        time.sleep(0.005)
    process.kill()
    process.communicate(LIMIT_S)
    assert process.returncode == -9


@pytest.mark.slow
@pytest.mark.parametrize("experiment", [DIALOGUES, SINGLE], ids=["dialogues", "single"])
def test_killed_twice_nothing_is_lost_or_asked_twice(tmp_path: Path, experiment: list[str]) -> None:
    command = [*experiment, f"feedback.samples={DRAWS}", "feedback.chunk=10"]
    with LLMServer(usual=saying) as server:
        whole = finish(start(tmp_path / "whole", server, *command))
        expected = Counter(map(asked, server.bodies))
    with LLMServer(FAULTS, usual=saying) as server:
        for share in (3, 2):  # a third of the requests, then half of them
            kill_when(
                start(tmp_path / "killed", server, *command),
                partial(more_than, server, sum(expected.values()) // share),
            )
        before = len(server.bodies)
        artifact = finish(start(tmp_path / "killed", server, *command))
        sent = Counter(map(asked, server.bodies))
    assert set(sent) == set(expected) and set(expected.values()) == {1}
    # again only what met a fault and what was under way at a kill
    assert sum(sent.values()) <= sum(expected.values()) + len(FAULTS) + 2 * AT_ONCE
    assert artifact.metrics["sampler/requests"] == len(server.bodies) - before
    assert groups(artifact) == groups(whole) and artifact.fingerprint == whole.fingerprint
    found = groups(artifact).values()
    assert len(found) == PROMPTS and {s.annotations["model"] for s in found} == {"peer"}
    assert {len(s.dialogues) for s in found} == {DRAWS}
    assert all(d.turns[-1].feedback for s in found for d in s.dialogues)
    assert "base_url" not in artifact.config["sampler"]
    if experiment == DIALOGUES:
        assert max(len(d.turns) for s in found for d in s.dialogues) > 1


def more_than(server: LLMServer, requests: int) -> bool:
    return len(server.bodies) > requests


def asked(body: Mapping[str, Any]) -> str:
    """Name a request, wherever its server was; one that is sent again has another seed."""
    return json.dumps(body, sort_keys=True)


def evaluate(tmp_path: Path, server: LLMServer, *overrides: str) -> Artifact:
    given = [f"sampler.base_url={server.url}", "sampler=endpoint", "sampler.model=org/peer-1"]
    return run_job(tmp_path, "job=evaluate", *given, *overrides)


def test_a_dialogue_is_held_with_the_model_behind_the_server(tmp_path: Path) -> None:
    with LLMServer(usual=saying) as server:
        given = ["benchmark=interaction", "benchmark.scenes=2", "generation.max_new_tokens=9"]
        evaluation = evaluate(tmp_path, server, *given)
        assert evaluation.metrics["sampler/requests"] == len(server.bodies)
        longest = max(server.bodies, key=lambda body: len(body["messages"]))
        again = evaluate(tmp_path, server, *given, "fresh=true")
        assert again.metrics["sampler/requests"] == 0
        assert again.metrics["world/interaction/turn_4"] >= 0
    roles = [message["role"] for message in longest["messages"]]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"] and len(roles) == 9
    assert longest["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/jpeg")
    assert (longest["temperature"], longest["max_tokens"]) == (0.0, 9)
    assert evaluation.name.startswith("interaction_org_peer-1-")
    rows = read_rows(evaluation.path / "responses.jsonl")
    assert {row["condition"] for row in rows} == {"none"}
    assert evaluation.lineage["parents"] == {} and "condition" not in evaluation.config


def test_a_condition_is_shown_where_one_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = ["benchmark.scenes=1", "condition.target=best", "condition=score"]
    with LLMServer(usual=saying) as server:
        evaluation = evaluate(tmp_path, server, *given)
    told = "\n\nhelpfulness 4 honesty 4 harmlessness 4"
    assert all(b["messages"][0]["content"][1]["text"].endswith(told) for b in server.bodies)
    assert evaluation.config["condition"] == {"form": "score"}
    assert "trained without conditions" in caplog.text


def test_questions_that_a_filter_lets_nothing_through_of_are_left_out(tmp_path: Path) -> None:
    write_coco(tmp_path / "data")
    rows = [
        {"question_id": n, "image": f"{1 + n % 3:03d}.jpg", "text": f"Is {n} there?", "label": x}
        for n, x in enumerate(("yes", "no") * 3)
    ]
    write_lines(tmp_path / "data" / "pope_random.json", rows)
    given = ["benchmark=pope", f"benchmark.root={tmp_path / 'data'}", "benchmark.splits=[random]"]
    given += ["benchmark.file=pope_\\{split\\}.json", "benchmark.images=coco/images"]
    filtered: set[str] = {"Is 4 there?"}

    def filtering(body: Mapping[str, Any]) -> Answer:
        stopped = any(text in json.dumps(body["messages"]) for text in filtered)
        return Answer("", finish="content_filter") if stopped else Answer("Yes.")

    with LLMServer(usual=filtering) as server:
        with pytest.raises(Reject, match="the model refused"):
            evaluate(tmp_path, server, *given)
        skipped = evaluate(tmp_path, server, *given, "benchmark.unanswered=skip")
        assert skipped.metrics["pope/unanswered"] == 1 and skipped.metrics["pope/responses"] == 5
        assert len(read_rows(skipped.path / "responses.jsonl")) == 5
        filtered.add("there?")
        nothing = [*given, "benchmark.unanswered=skip", "sampler.cache_dir=null", "fresh=true"]
        with pytest.raises(InputError, match="no question of pope got a response"):
            evaluate(tmp_path, server, *nothing)


def test_parts_say_together_what_they_have_cost(tmp_path: Path) -> None:
    command = [*WORLD, *SINGLE, "feedback.prompts=8", "feedback.chunk=4", "feedback.parts=2"]
    with LLMServer(usual=saying) as server:
        joined = run_job(tmp_path, f"sampler.base_url={server.url}", *command)
    costs = {n: v for n, v in joined.metrics.items() if n.startswith("sampler/")}
    assert costs["sampler/requests"] == len(server.bodies) > 8
    parts = [Artifact.open(path) for path in tmp_path.glob("dress_feedback-*")]
    (completed,) = {a.metrics["sampler/completion_tokens"] for a in parts if a.path == joined.path}
    parts = [part for part in parts if part.path != joined.path]
    assert completed == sum(part.metrics["sampler/completion_tokens"] for part in parts) > 0


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["artifact=x"], "artifact and sampler=endpoint are both set"),
        (["job=evaluate", "responses=x"], "sampler=endpoint and responses are both set"),
        (["job=train"], "sampler=endpoint is not read by job=train"),
        (["feedback.responses=captions"], "give feedback.responses=sampled"),
        (["job=evaluate", "generation.guidance=1"], "which a server does not tell"),
        (
            ["job=evaluate", "benchmark=interaction", "benchmark.first=faulty"],
            r"give benchmark\.openings=<folder",
        ),
        (["sampler.base_url=ftp://x"], "base_url is 'ftp://x'"),
        (["sampler.base_url=https://example.org/v1"], "OPENAI_API_KEY is not set"),
        (["sampler.concurrency=0"], "sampler.concurrency is 0"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_cannot_be_done_ends_in_a_sentence(
    tmp_path: Path, overrides: list[str], sentence: str
) -> None:
    given = ["experiment=dress_feedback", "sampler=endpoint", "sampler.model=m"]
    with pytest.raises(InputError, match=sentence):
        typed = [*given, "sampler.base_url=http://localhost:9/v1", *overrides]
        run_job(tmp_path, *typed)
