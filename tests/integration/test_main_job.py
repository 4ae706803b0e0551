"""The main job, shortened, as a user runs it: in processes that may reach no network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

import dress
from dress.artifact import Artifact
from dress.errors import InputError
from dress.world.questions import TASKS
from dress.world.scene import COLOURS, SHAPES, SIZES
from tests.processes import Process

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "debug=smoke",
    "logger=local",
    "callbacks=none",
    "data.sizes={captions: 60, instructions: 60, prompts: 40}",
    "data.validation_share=0.1",
    "data.groups_per_step={stage0: 8, stage1: 8, stage2: 8, stage3: 8}",
    "feedback.samples=2",
    "feedback.max_new_tokens=8",
    "model.language.config.num_hidden_layers=2",
]
EVALUATION = ["benchmark.scenes=3", "generation.max_new_tokens=8"]
MAIN = ["experiment=dress_stage2", *TINY, *EVALUATION]
NO_NETWORK = """
import os, socket

def guarded(real):
    def connect(self, address):
        local = self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost")
        if not local:
            with open(os.environ["NETWORK_LOG"], "a") as log:
                log.write(f"{address}\\n")
            raise OSError(f"no network in this test: {address}")
        return real(self, address)
    return connect

def resolve(host, *rest, real=socket.getaddrinfo, **more):
    if host not in (None, "", "localhost", "127.0.0.1", "::1", socket.gethostname()):
        with open(os.environ["NETWORK_LOG"], "a") as log:
            log.write(f"resolve {host}\\n")
        raise socket.gaierror(f"no network in this test: {host}")
    return real(host, *rest, **more)

socket.socket.connect = guarded(socket.socket.connect)
socket.socket.connect_ex = guarded(socket.socket.connect_ex)
socket.getaddrinfo = resolve
"""
RUN = f"runpy.run_path({str(ROOT / 'run.py')!r}, run_name='__main__')\n"
LIMIT_S = 300


@dataclass(frozen=True)
class Done:
    output: str
    seconds: float
    artifact: Artifact


@dataclass(frozen=True)
class Sandbox:
    """A folder for everything written, and an interpreter that cannot leave the machine."""

    folder: Path

    @property
    def network_log(self) -> Path:
        return self.folder / "network.log"

    def prepare(self) -> None:
        (self.folder / "site").mkdir()
        (self.folder / "site" / "sitecustomize.py").write_text(NO_NETWORK)
        (self.folder / "site" / "run.py").write_text(f"import runpy{NO_NETWORK}{RUN}")

    @property
    def environment(self) -> dict[str, str]:
        search = os.pathsep.join([str(self.folder / "site"), str(ROOT)])
        # a W&B process of this one's own would be joined, and would keep the run to itself
        outside = {name: v for name, v in os.environ.items() if name != "WANDB_SERVICE"}
        return outside | {
            "PYTHONPATH": search,
            "NETWORK_LOG": str(self.network_log),
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *overrides: str) -> Done:
        """Run it as a user does, in a fresh interpreter."""
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *overrides],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        seconds = time.monotonic() - started
        return self._done(done.returncode, done.stdout, done.stderr, seconds)

    def run_forked(self, *overrides: str) -> Done:
        """Run it in a process that has the heavy imports already."""
        started = time.monotonic()
        script = self.folder / "site" / "run.py"
        process = Process(script, overrides, environment=self.environment, cwd=self.folder)
        output, errors = process.communicate(LIMIT_S)
        return self._done(process.returncode, output, errors, time.monotonic() - started)

    def _done(self, code: int | None, output: str, errors: str, seconds: float) -> Done:
        assert code == 0, output + errors
        last = output.strip().splitlines()[-1]
        assert last.startswith("artifact: "), output
        return Done(output, seconds, Artifact.open(self.folder / last.removeprefix("artifact: ")))


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    box = Sandbox(tmp_path_factory.mktemp("main_job"))
    box.prepare()
    return box


@pytest.fixture(scope="module")
def first(sandbox: Sandbox) -> Done:
    return sandbox.run(*MAIN)


@pytest.fixture(scope="module")
def evaluated(sandbox: Sandbox, first: Done) -> Done:
    model = f"artifact={first.artifact.path}"
    return sandbox.run_forked("job=evaluate", model, "condition.target=worst", *EVALUATION)


def evaluations(sandbox: Sandbox) -> list[Path]:
    return sorted((sandbox.folder / "artifacts").glob("world_*/responses.jsonl"))


def test_it_builds_every_parent_once_and_prints_the_table(sandbox: Sandbox, first: Done) -> None:
    assert first.output.splitlines()[0].startswith("dress: job=train name=dress_stage2")
    built = re.findall(r"^building (\S+)-[0-9a-f]{12} ", first.output, re.MULTILINE)
    assert built == [
        "dress_captions",
        "dress_stage0",
        "dress_instructions",
        "dress_stage1",
        "dress_prompts",
        "dress_feedback",
        "dress_stage2",
        "world_dress_stage1",
        "world_dress_stage2",
    ]
    for name in ("helpfulness", "honesty", "harmlessness"):
        assert re.search(rf"^world/{name} +\d\.\d{{3}} \[", first.output, re.MULTILINE)
    assert "stage 2 best" in first.output and "gain: helpful" in first.output
    assert sorted(p.name for p in sandbox.folder.iterdir()) == ["artifacts", "site"]
    assert not list((sandbox.folder / "artifacts").glob("*.partial"))


def test_metrics_are_flat_numbers_with_intervals(first: Done) -> None:
    metrics = first.artifact.metrics
    assert all(re.fullmatch(r"[\w ]+(/\w+)+", name) for name in metrics)
    assert all(isinstance(value, float) for value in metrics.values())
    for name in (
        "helpfulness",
        "recall",
        "vqa_accuracy",
        "honesty",
        "chair_i",
        "chair_s",
        "harmlessness",
        "relevance",
        "safety",
        "persuasiveness",
        "overrefusal",
    ):
        value, low, high = (metrics[f"world/{name}{bound}"] for bound in ("", "_low", "_high"))
        assert 0 <= low <= value <= high <= 1, name
        assert f"init/world/{name}" in metrics
    assert metrics["train/loss"] > 0 and metrics["val/loss"] > 0
    assert metrics["data/rejects"] == 0


def test_an_artifact_knows_where_it_comes_from(first: Done) -> None:
    lineage = first.artifact.lineage
    assert {role: p["name"].rsplit("-", 1)[0] for role, p in lineage["parents"].items()} == {
        "init": "dress_stage1",
        "data": "dress_feedback",
        "mixture_replay": "dress_captions",
    }
    assert lineage["kind"] == "model" and lineage["code_version"]
    assert first.artifact.config["condition"]["form"] == "both"
    history = (first.artifact.path / "metrics.jsonl").read_text().splitlines()
    assert all("step" in json.loads(line) for line in history) and history
    assert not list(first.artifact.path.rglob("*.ckpt"))


def test_responses_keep_the_contract(sandbox: Sandbox, first: Done, evaluated: Done) -> None:
    files = evaluations(sandbox)
    assert len(files) == 3  # stage 1, stage 2 under best, stage 2 under worst
    for file in files:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert len({row["id"] for row in rows}) == len(rows) >= 3 * 6
        assert {row["task"] for row in rows} <= set(TASKS)
        assert {row["condition"] for row in rows} in ({"none"}, {"best"}, {"worst"})
        for row in rows:
            assert list(row) and row["turn"] == 0
            texts = (row["question"], row["answer"], row["response"])
            assert all(isinstance(text, str) for text in texts) and row["question"]
            assert Image.open(file.parent / row["image"]).size == (48, 48)
            for thing in row["scene"]:
                assert set(thing) == {"shape", "colour", "size", "cell"}
                assert thing["shape"] in SHAPES and thing["colour"] in COLOURS
                assert thing["size"] in SIZES and thing["cell"] in range(9)


def test_the_same_command_does_nothing_twice(sandbox: Sandbox, first: Done) -> None:
    before = {path: path.stat().st_mtime_ns for path in evaluations(sandbox)}
    again = sandbox.run_forked(*MAIN)
    assert "building" not in again.output
    assert again.artifact.path == first.artifact.path
    assert again.artifact.metrics == first.artifact.metrics
    assert before == {path: path.stat().st_mtime_ns for path in evaluations(sandbox)}
    assert again.seconds < first.seconds  # by far; a busy machine makes both longer


def test_evaluate_uses_the_model_and_form_of_the_artifact(first: Done, evaluated: Done) -> None:
    parent = evaluated.artifact.lineage["parents"]["model"]
    assert parent["fingerprint"] == first.artifact.fingerprint
    assert evaluated.artifact.config["target"] == "worst"
    assert 0 <= evaluated.artifact.metrics["world/mean"] <= 1


def test_ten_lines_of_python(first: Done, sandbox: Sandbox) -> None:
    assistant = dress.load(first.artifact.path)
    picture = next((evaluations(sandbox)[0].parent / "images").glob("*.jpg"))
    question = "Describe the picture."
    for condition in ("best", "none", "worst", "2", "4/1/4"):
        for image in (picture, str(picture), picture.read_bytes(), Image.open(picture)):
            response = assistant.respond(image, question, condition=condition, max_new_tokens=4)
            assert isinstance(response, str)


def test_nothing_tried_to_leave_the_machine(sandbox: Sandbox, first: Done, evaluated: Done) -> None:
    assert not sandbox.network_log.exists(), sandbox.network_log.read_text()


def test_the_python_of_the_readme_runs(
    sandbox: Sandbox, first: Done, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    image = sandbox.folder / "site" / "picture.jpg"
    image.write_bytes(next(iter((sandbox.folder / "artifacts").rglob("images/*.jpg"))).read_bytes())
    code = code.replace("artifacts/dress_stage2-<id>", str(first.artifact.path))
    exec(code.replace("picture.jpg", str(image)), {})
    assert len(capsys.readouterr().out.splitlines()) >= 2


def test_a_model_refuses_images_prepared_otherwise(first: Done, tmp_path: Path) -> None:
    copy = tmp_path / first.artifact.path.name
    shutil.copytree(first.artifact.path, copy)
    probe = json.loads((copy / "preprocess.json").read_text())["probe"]
    darker = [round(value - 0.1, 3) for value in probe]  # another mean
    text = json.dumps({"probe": darker})
    (copy / "preprocess.json").write_text(text.ljust((copy / "preprocess.json").stat().st_size))
    with pytest.raises(InputError, match="prepared otherwise"):
        dress.load(copy)
