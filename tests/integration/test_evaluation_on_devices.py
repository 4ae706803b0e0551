"""job=evaluate and job=annotate on two devices give the bytes of one, also after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from test_devices import ENVIRONMENT, LIMIT_S, ROOT, end, in_this_process

from dress.artifact import Artifact
from dress.assistant import Assistant
from dress.data.shard_index import read_all
from dress.data.split import SPLITS
from dress.errors import InputError
from dress.files import read_json, read_lines
from dress.jobs import processes
from dress.jobs.job import Job
from dress.jobs.respond import _sampler
from tests.processes import Process

FILES = ("metrics.json", "responses.jsonl")
SIZES = ("generation.max_new_tokens=6", "generation.batch_size=3")
BENCHMARKS = {
    "world": ("benchmark=world", "benchmark.scenes=7"),  # 42 questions in two chunks
    "interaction": ("benchmark=interaction", "benchmark.scenes=3", "benchmark.turns=2"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return in_this_process(tmp_path_factory.mktemp("model"))


def typed(model: Artifact, folder: Path, *overrides: str) -> list[str]:
    places = (f"artifact={model.path}", f"paths.artifacts={folder}")
    return ["job=evaluate", "matmul_precision=highest", *places, *SIZES, *overrides]


def evaluate(model: Artifact, folder: Path, *overrides: str) -> Artifact:
    return composed(*typed(model, folder, *overrides))


def composed(*given: str) -> Artifact:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return Job(cfg=compose("run", [*given]), overrides=given).run()
    finally:
        torch.set_num_threads(threads)


def payload(evaluation: Artifact) -> dict[str, bytes]:
    images = sorted(path.name for path in (evaluation.path / "images").iterdir())
    kept = {name: (evaluation.path / name).read_bytes() for name in FILES}
    return kept | {"images": " ".join(images).encode()}


def answer_as_one(model: Artifact, folder: Path, name: str) -> list[dict[str, Any]]:
    one = evaluate(model, folder / "one", *BENCHMARKS[name])
    two = evaluate(model, folder / "two", *BENCHMARKS[name], "trainer.devices=2")
    assert one.name == two.name and payload(one) == payload(two)
    rows = list(read_lines(two.path / "responses.jsonl"))
    assert len({row["response"] for row in rows}) > 1  # or the order could not matter
    assert len(rows) == len({(row["id"], row["turn"]) for row in rows})
    return rows


@pytest.mark.slow  # of single questions below
def test_two_processes_talk_as_one(
    tmp_path: Path, model: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert {row["turn"] for row in answer_as_one(model, tmp_path, "interaction")} == {0, 1, 2}


FEEDBACK = {
    "single": ("experiment=dress_feedback",),
    "rollouts": ("experiment=dress_refinements", "feedback.turns=2", "feedback.candidates=2"),
}


def annotate(model: Artifact, folder: Path, *overrides: str) -> Artifact:
    sizes = ("data.sizes={prompts: 13}", "data.validation_share=0.3", "feedback.batch_size=3")
    short = ("feedback.max_new_tokens=6", "data.max_rejects=100")
    places = (f"artifact={model.path}", f"paths.artifacts={folder}")
    return composed("matmul_precision=highest", *places, *sizes, *short, *overrides)


@pytest.mark.parametrize("name", ["single", pytest.param("rollouts", marks=pytest.mark.slow)])
def test_two_processes_annotate_as_one_and_are_kept(
    name: str, tmp_path: Path, model: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = annotate(model, tmp_path / "one", *FEEDBACK[name])
    two = annotate(model, tmp_path / "two", *FEEDBACK[name], "trainer.devices=2")
    assert one.name == two.name and one.metrics == two.metrics
    assert one.metrics["rollout/generated_tokens"] > 100
    for split in SPLITS:
        assert list(read_all(one.path / split)) == list(read_all(two.path / split))
    (ranks,) = processes._kept
    answer_as_one(model, tmp_path, "world")
    assert processes._kept == [ranks]
    # those that ended since, or would inherit something else, are not used again
    pids = ranks.context.pids()
    assert ranks.can_be_used(2) and not ranks.can_be_used(3)
    monkeypatch.setenv("CHANGED", "yes")
    assert not ranks.can_be_used(2)
    monkeypatch.delenv("CHANGED")
    os.kill(pids[1], signal.SIGKILL)
    while ranks.can_be_used(2):
        time.sleep(0.01)
    processes.end_ranks()
    assert not processes._kept and not ranks.folder.exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())


@pytest.mark.slow
def test_killed_on_two_devices_it_goes_on_on_one(tmp_path: Path, model: Artifact) -> None:
    many = ("benchmark=world", "benchmark.scenes=40", "generation.batch_size=1")
    command = [*typed(model, tmp_path / "killed", *many), "trainer.devices=2"]
    process = Process(ROOT / "run.py", command, environment=ENVIRONMENT)
    answered = wait_for_answers(tmp_path / "killed", process)
    process.kill()
    assert end(process)[0] == -9
    kept = journalled(tmp_path / "killed")
    assert answered <= len(kept) < 240
    killed = evaluate(model, tmp_path / "killed", *many)
    assert payload(killed) == payload(evaluate(model, tmp_path / "whole", *many))


def journalled(folder: Path) -> list[object]:
    return [row for f in folder.glob("*.partial/scratch/generated.jsonl") for row in read_lines(f)]


def wait_for_answers(folder: Path, process: Process) -> int:
    began = time.monotonic()
    while not (found := len(journalled(folder))):
        assert process.poll() is None, end(process)
        assert time.monotonic() - began < LIMIT_S, "nothing was answered"
        time.sleep(0.02)
    return found


@pytest.fixture
def foreign(tmp_path: Path, model: Artifact) -> Artifact:
    """A model that a rank refuses when it has loaded it: its images were prepared otherwise."""
    copy = Path(shutil.copytree(model.path, tmp_path / model.name))
    file = copy / "preprocess.json"
    darker = {"probe": [round(value - 0.1, 3) for value in read_json(file)["probe"]]}
    file.write_text(json.dumps(darker).ljust(file.stat().st_size))
    return Artifact.open(copy)


@pytest.mark.slow  # below, the same of one rank in this process; above, two that are started
def test_a_rank_that_fails_ends_the_job_with_its_sentence(
    tmp_path: Path, foreign: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(InputError, match="prepared otherwise"):
        evaluate(foreign, tmp_path / "artifacts", *BENCHMARKS["world"], "trainer.devices=2")
    assert nothing_half_made(tmp_path / "artifacts")


def test_what_a_rank_leaves_that_fails_ends_the_job_with_its_sentence(
    tmp_path: Path, foreign: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only rank is this process, which does all that one does that is started."""
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    codes = []

    def launch(order: processes.Order, number: int) -> processes.Result:
        (tmp_path / processes.ORDER).write_text(json.dumps(order))
        codes.append((number, processes.follow(tmp_path)))
        return processes.outcome(tmp_path, 1, None)

    monkeypatch.setattr("dress.jobs.answer.launch", launch)
    with pytest.raises(InputError, match="prepared otherwise"):
        evaluate(foreign, tmp_path / "artifacts", *BENCHMARKS["world"], "trainer.devices=2")
    assert codes == [(2, 1)] and nothing_half_made(tmp_path / "artifacts")


def nothing_half_made(folder: Path) -> bool:
    return not [path for path in folder.iterdir() if path.suffix in (".partial", ".lock")]


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_annotated_responses_are_sampled_on_the_own_device(
    model: Artifact, monkeypatch: pytest.MonkeyPatch, accelerator: str
) -> None:
    devices = {"cpu": torch.device("cpu"), "gpu": torch.device("meta")}
    monkeypatch.setattr("dress.modeling.devices.own_device", devices.__getitem__)
    given = ["experiment=dress_feedback", f"trainer={accelerator}", "matmul_precision=highest"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        sampler = _sampler(Job(cfg=compose("run", given), overrides=given), {"model": model})
    assert isinstance(sampler, Assistant)
    assert {weight.device for weight in sampler.model.parameters()} == {devices[accelerator]}
