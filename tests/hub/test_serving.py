"""An export behind `transformers serve`: the answers of here, and responses to be judged."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from openai import OpenAI
from PIL import Image

import dress
from dress.artifact import Artifact
from dress.chat.images import data_url, png
from dress.data.shard_index import read_all
from dress.jobs.job import Job
from dress.records import Sample
from tests.data.nlf_files import nlf_row, write_nlf
from tests.hub.released_models import KINDS, photographs, save_released
from tests.integration.own_data import CONF, run_job
from tests.processes import ROOT, Process

PROMPTS, AT_ONCE, LIMIT_S = 12, 2, 600
ANSWERED = '"POST /v1/chat/completions HTTP/1.1" 200'
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(find_spec, ("fastapi", "uvicorn", "accelerate", "rich"))),
        reason="transformers serve needs pip install -e '.[serve]'",
    ),
]


@dataclass(frozen=True)
class Server:
    """A server on this machine; `log` has a line for each request that it answered."""

    url: str
    log: Path

    @property
    def answered(self) -> int:
        return self.log.read_text().count(ANSWERED)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    root = tmp_path_factory.mktemp("trained")
    write_nlf(root / "data", [nlf_row(number) for number in range(8)])
    return run_job(
        root,
        "experiment=dress_stage2",
        "model=llava_hf",
        f"model.name={save_released(KINDS[0], root / 'released')}",
        "data=lvlm_nlf",
        "optimizer.lr=0.05",
        "scheduler.warmup_steps=0",
    )


@pytest.fixture(scope="module")
def server(trained: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    typed = ["job=export", f"artifact={trained.path}", f"paths.artifacts={trained.path.parent}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        exported = Job(cfg=compose("run", overrides=typed), overrides=typed).run().path
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "model"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=exported,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
    try:
        wait_until(partial(listens, port), lambda: process.poll() is None, log)
        yield Server(f"http://127.0.0.1:{port}/v1", log)
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def wait_until(reached: Callable[[], bool], alive: Callable[[], bool], log: Path) -> None:
    began = time.monotonic()
    while not reached():
        assert alive() and time.monotonic() - began < LIMIT_S, log.read_text()
        time.sleep(0.02)


def asked(client: OpenAI, picture: Image.Image | None, question: str) -> str:
    content: list = [{"type": "text", "text": question}]
    if picture is not None:
        content.insert(0, {"type": "image_url", "image_url": {"url": data_url(png(picture))}})
    reply = client.chat.completions.create(
        model="model",
        messages=[{"role": "user", "content": content}],
        temperature=0.0,
        max_tokens=10,
    )
    return reply.choices[0].message.content or ""


def test_a_server_gives_the_answers_of_here(trained: Artifact, server: Server) -> None:
    """The condition is in the export; the client asks a plain question."""
    client, assistant = OpenAI(base_url=server.url, api_key="none"), dress.load(trained.path)
    unescape, said = assistant.processor.template.unescape, set()
    for picture in photographs():
        for question in ("What is in the picture?", "Is there a spoon beside the cup?"):
            mine = assistant.respond(picture, question, condition="best", max_new_tokens=10)
            assert unescape(asked(client, picture, question).strip()) == mine
            said.add(mine)
    assert len(said) > 1


def annotate(folder: Path, server: Server) -> Process:
    return Process(
        ROOT / "run.py",
        [
            "experiment=dress_feedback",
            f"data.sizes={{captions: 40, instructions: 40, prompts: {PROMPTS}}}",
            "data.validation_share=0.1",
            "sampler=endpoint",
            f"sampler.base_url={server.url}",
            "sampler.model=model",
            f"sampler.concurrency={AT_ONCE}",
            "feedback.samples=1",
            "feedback.chunk=4",
            "feedback.temperature=0",
            "feedback.max_new_tokens=8",
            "logger=local",
            f"paths.artifacts={folder}",
        ],
        environment={k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
        | {"OMP_NUM_THREADS": "1"},
        join_errors=True,
    )


def groups(process: Process) -> dict[str, Sample]:
    output, _ = process.communicate(LIMIT_S)
    assert process.returncode == 0, output
    path = Artifact.open(output.strip().splitlines()[-1].removeprefix("artifact: ")).path
    return {s.id: s for split in ("train", "validation") for s in read_all(path / split)}


def test_annotation_is_killed_twice_and_nothing_is_lost_or_doubled(
    server: Server, tmp_path: Path
) -> None:
    whole = groups(annotate(tmp_path / "whole", server))
    assert len(whole) == PROMPTS
    last = [dialogue.turns[-1] for sample in whole.values() for dialogue in sample.dialogues]
    assert len(last) == PROMPTS and all(turn.model and turn.feedback for turn in last)
    before = server.answered
    for _ in range(2):
        process = annotate(tmp_path / "killed", server)
        enough = server.answered + 4
        wait_until(
            lambda enough=enough: server.answered >= enough,
            lambda process=process: process.poll() is None,
            server.log,
        )
        process.kill()
        process.communicate(LIMIT_S)
        assert process.returncode == -9
    assert groups(annotate(tmp_path / "killed", server)) == whole
    assert server.answered - before <= PROMPTS + 2 * AT_ONCE
