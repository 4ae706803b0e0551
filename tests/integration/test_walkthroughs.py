"""The parts that docs/extending.md adds run as its reader would run them: a Python file and a YAML.

The files are taken from the page and written to an empty folder beside the project.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import dress
from dress.artifact import Artifact
from dress.data.shard_index import read_all
from dress.errors import InputError
from dress.files import read_lines
from tests.data.coco_files import photograph
from tests.processes import Process

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
ADDING = PAGE.partition("## Adding a part")[2].partition("\n## ")[0]
SECTION = re.compile(r"^### An? (?P<part>.+)\n(?P<text>(?:(?!^### ).*\n)*)", re.MULTILINE)
FILE = re.compile(
    r"^`(?P<name>[\w/.]+)`:\n\n```(?:python|yaml)\n(?P<code>.*?)```", re.M | re.DOTALL
)
COMMAND = re.compile(r"```bash\npython (?P<line>.*)\n```")
WORLD = "data.sizes={captions: 40, instructions: 40, prompts: 12}"
SHORT = "generation.max_new_tokens=4"
SMALL = [
    "debug=smoke",
    *(f"data.groups_per_step.stage{number}=4" for number in range(3)),
    "data.validation_share=0.2",
    SHORT,
    "feedback.max_new_tokens=4",
    "compare=[]",
]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
LIMIT_S = 300


@dataclass(frozen=True)
class Part:
    files: dict[str, str]
    command: Sequence[str]  # what follows `python`


def part_of(text: str) -> Part:
    command = COMMAND.search(text)
    assert command is not None
    files = {file["name"]: file["code"] for file in FILE.finditer(text)}
    return Part(files, shlex.split(command["line"]))


PARTS = {found["part"]: part_of(found["text"]) for found in SECTION.finditer(ADDING)}


class Folder:
    """A folder beside the project, in which commands are typed."""

    def __init__(self, path: Path) -> None:
        (path / "dress").symlink_to(ROOT)
        self.path = path / "mine"
        self.path.mkdir()
        self._made: dict[str, tuple[Artifact, str]] = {}

    def write(self, part: str) -> None:
        for name, code in PARTS[part].files.items():
            file = self.path / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(code, encoding="utf-8")

    def run(self, script: str, *arguments: str) -> tuple[int | None, str, str]:
        process = Process(
            self.path / script, arguments, environment=ENVIRONMENT, cwd=self.path, new_session=True
        )
        output, errors = process.communicate(LIMIT_S)
        return process.returncode, output, errors

    def walk(self, part: str) -> tuple[Artifact, str]:
        """Give the command of a part once; return what it made and printed."""
        if part not in self._made:
            self.write(part)
            command = [self.resolved(word) for word in PARTS[part].command]
            small = [SHORT] if "job=evaluate" in command else SMALL
            world = [] if "data=captioned" in command else [WORLD]
            code, output, errors = self.run(*command, *small, *world)
            assert code == 0, output + errors
            self._made[part] = self.last(output), output
        return self._made[part]

    def resolved(self, word: str) -> str:
        """Name the stage-1 model of the objective's walk where the page says `<id>`."""
        key, _, value = word.partition("=")
        return f"{key}={self.walk('objective')[0].path}" if "<id>" in value else word

    def last(self, output: str) -> Artifact:
        *_, path = re.findall(r"^artifact: (.*)$", output, re.MULTILINE)
        return Artifact.open(self.path / path)

    def parent(self, artifact: Artifact) -> Artifact:
        """Return the data that a model was trained on."""
        return Artifact.open(artifact.path.with_name(artifact.lineage["parents"]["data"]["name"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("walk"))


def test_each_part_is_one_python_file_and_one_yaml() -> None:
    expected = {"objective", "data source", "annotator", "benchmark", "callback", "logger"}
    assert set(PARTS) == expected
    for part in PARTS.values():
        assert sorted(Path(name).suffix for name in part.files) == [".py", ".yaml"]


def test_an_objective(folder: Folder) -> None:
    """The model is used by others than its author: nothing of it imports the objective."""
    artifact, _ = folder.walk("objective")
    text = (artifact.path / "config.yaml").read_text()
    expected = {"_foreign_target_": "focal.FocalLoss", "gamma": 2.0, "requires": "dialogues"}
    assert yaml.safe_load(text)["objective"] == expected
    assert artifact.metrics["val/loss"] > 0
    model = dress.load(artifact.path)
    assert isinstance(model.respond(photograph(1), "What?", max_new_tokens=2), str)
    assert "focal" not in sys.modules


def test_a_data_source(folder: Folder) -> None:
    pictures = folder.path / "pictures"
    pictures.mkdir()
    for number in range(8):
        (pictures / f"{number}.jpg").write_bytes(photograph(number))
        (pictures / f"{number}.txt").write_text(f"Picture number {number}.")
    artifact, _ = folder.walk("data source")
    data = folder.parent(artifact)
    samples = [s for split in ("train", "validation") for s in read_all(data.path / split)]
    said = {sample.id: sample.dialogues[0].turns[0].model for sample in samples}
    assert said == {str(number): f"Picture number {number}." for number in range(8)}
    assert artifact.metrics["val/loss"] > 0


def test_an_annotator(folder: Folder) -> None:
    artifact, _ = folder.walk("annotator")
    data = folder.parent(artifact)
    assert data.config["annotator"] == {"_foreign_target_": "brevity.Brevity", "words": 12}
    samples = [s for split in ("train", "validation") for s in read_all(data.path / split)]
    turns = [dialogue.turns[-1] for sample in samples for dialogue in sample.dialogues]
    for turn in turns:
        assert turn.feedback is not None
        words = len((turn.model or "").split())
        assert turn.feedback.judgements["helpfulness"].critique == f"It has {words} words."
    assert len(turns) > 12


def test_a_benchmark(folder: Folder) -> None:
    evaluation, output = folder.walk("benchmark")
    rows = list(read_lines(evaluation.path / "responses.jsonl"))
    assert [row["answer"] for row in rows] == ["red", "green", "blue", "yellow"]
    named = sum(row["answer"] in row["response"].lower() for row in rows) / 4
    assert evaluation.metrics["colours/named"] == named
    assert "colours/named" in output
    code, output, errors = folder.run("../dress/run.py", "job=report")  # names no package
    assert code == 0, errors
    report = (folder.last(output).path / "report.md").read_text()
    assert "## colours\n" in report and f"| named | {named:.3f} [" in report


def test_a_callback(folder: Folder) -> None:
    _, output = folder.walk("callback")
    assert re.search(r"^step 4: ", output, re.MULTILINE)


def test_a_logger(folder: Folder) -> None:
    artifact, _ = folder.walk("logger")
    text = (artifact.path / "figures.txt").read_text()
    found = re.findall(r"^\d+ val/loss (.*)$", text, re.MULTILINE)
    assert float(found[-1]) == pytest.approx(artifact.metrics["val/loss"], rel=1e-3)


def test_what_may_change_numbers_counts_for_the_name(folder: Folder) -> None:
    """Of otherwise equal runs one has another objective, one a callback, one a logger only."""
    names = {part: folder.walk(part)[0].name for part in ("objective", "callback", "logger")}
    assert len(set(names.values())) == 3
    callbacks = folder.walk("callback")[0].config["callbacks"]
    assert callbacks["asking"]["_foreign_target_"] == "asking.Asking"
    assert "callbacks" not in folder.walk("logger")[0].config


@pytest.fixture
def refused(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.write("objective")
    return folder


def sentence(folder: Folder, *arguments: str) -> str:
    code, _, errors = folder.run("../dress/run.py", "--config-dir", ".", *arguments)
    (line,) = errors.splitlines()
    assert code == 1 and line.startswith("error: ")
    made = folder.path / "artifacts"
    assert not made.exists() or {path.name for path in made.iterdir()} <= {"hydra"}
    return line.removeprefix("error: ").replace(f"{folder.path}/", "")


FOCAL = ["experiment=dress_stage1", "objective=focal"]
OWN = ["packages=[focal]", *FOCAL]


def test_an_objective_of_the_wrong_records_is_told_the_line(refused: Folder) -> None:
    """In a fresh interpreter, before the libraries that take seconds are imported."""
    file = refused.path / "focal.py"
    file.write_text(file.read_text().replace('"dialogues"', '"feedback"'))
    spy = (
        "import runpy, sys\n"
        "try: runpy.run_path('../dress/run.py', run_name='__main__')\n"
        "finally: print({'lightning', 'transformers', 'open_clip'} & set(sys.modules))\n"
    )
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", spy, "--config-dir", ".", *OWN]
    done = subprocess.run(
        command, cwd=refused.path, env=environment, capture_output=True, text=True
    )
    said = done.stderr.removeprefix("error: ").strip().replace(f"{refused.path}/", "")
    assert f"`{said}`" in " ".join(PAGE.split())
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "focal.FocalLoss requires None, which is no kind of record: "),
        ('    requires = "captions"', "focal.FocalLoss requires 'captions', which is no kind"),
    ],
)
def test_an_objective_without_a_kind_of_records(refused: Folder, line: str, message: str) -> None:
    file = refused.path / "focal.py"
    file.write_text(re.sub(r"    requires.*", line, file.read_text()))
    place = "focal.py, line 11." if line else "focal.py, line 10."
    said = sentence(refused, *OWN)
    assert said.startswith(message) and said.endswith(place)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (FOCAL, "_target_=focal.FocalLoss is foreign code: "),
        ([*FOCAL, "packages=[foca]"], "_target_=focal.FocalLoss is foreign code: "),
        ([*FOCAL, "packages=focal"], "packages is 'focal': give a list"),
        ([*OWN, "objective._target_=focal.Nothing"], "_target_=focal.Nothing cannot be imported"),
        (
            [*FOCAL, "packages=[focl]", "objective._target_=focl.X"],
            "_target_=focl.X cannot be imported (No module named 'focl')",
        ),
        ([*OWN, "+objective.gama=1"], "nothing reads objective.gama: "),
        ([*OWN, "objective.gama=1"], "objective.gama is not set yet: give +objective.gama="),
        (["experiment=mine", "objective=focal"], "packages is set in a YAML file: type packages="),
        (["model=null"], "model has no option 'null': "),
        (["--config-dir", "nowhere"], "nowhere is no folder: correct --config-dir."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake(refused: Folder, arguments: Sequence[str], message: str) -> None:
    (refused.path / "experiment").mkdir()
    text = "# @package _global_\npackages: [focal]\n"
    (refused.path / "experiment/mine.yaml").write_text(text)
    assert message in sentence(refused, *arguments)


def test_a_file_with_a_fault(refused: Folder) -> None:
    (refused.path / "focal.py").write_text("import dress\n\nclass FocalLoss(Base):\n    pass\n")
    said = sentence(refused, *OWN)
    assert "cannot be imported (name 'Base' is not defined)" in said


def test_an_artifact_that_names_a_package_is_refused(folder: Folder, tmp_path: Path) -> None:
    artifact, _ = folder.walk("objective")
    copy = shutil.copytree(artifact.path, tmp_path / artifact.name)
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("_foreign_target_", "_target_"))
    with pytest.raises(InputError, match=r"names the foreign code 'focal\.FocalLoss'"):
        dress.load(copy)
