"""Every command of the README and of docs/ runs, in a copy of the project, on small data.

A command stands in a fenced bash block. A comment before the block may say

    <!-- not run: why -->        the block cannot run here: network, GPU, SLURM, hours
    <!-- run with: OVERRIDES --> added to its commands here, for example instead of a download

`pytest -n 0 -m slow tests/integration/test_documented_commands.py -rs` lists what is not run.
Jobs are shortened by `debug=smoke`, and scripts by SCRIPTS. DIR is a folder with a few files of
each public data set, URL a server on this machine, and ARTIFACT-<id> the artifact of that name,
which is built where no earlier command has made it. MODEL is the folder of a tiny released model.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_paper_scale import write_lvlm_nlf

from tests.data.coco_files import photograph, write_coco
from tests.data.nlf_files import nlf_row, write_nlf
from tests.data.released_rows import llava_row, write_rows
from tests.evaluation.public_files import write_lines
from tests.feedback.llm_server import Answer, LLMServer
from tests.hub.released_models import KINDS, save_released

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (?P<marker>[^>]+) -->\n)?```bash\n(?P<code>.*?)```", re.DOTALL)
JOB = re.compile(r"^(python|torchrun \S+) run\.py (?!--help)")
SHORT = "generation.max_new_tokens=8"
SMOKE = f"debug=smoke feedback.max_new_tokens=8 {SHORT}"
SCRIPTS = {
    "main_result.py": f"--seeds 0 --controls --scenes 2 --out main.json {SMOKE}",
    "comparison.py": f"--seeds 0 --scenes 2 --arms 'stage 1' --out compared {SMOKE}",
}
PHOTOGRAPHS = 12
FROM_RELEASED = "name=my_llava model=llava_hf model.name=released init_from=pretrained"
OTHERS = {  # how artifacts are built that do not have the name of their experiment
    "my_llava": f"experiment=dress_stage2 {FROM_RELEASED} data=lvlm_nlf data.root=public",
}


@dataclass(frozen=True)
class Command:
    page: str
    text: str
    reason: str  # why it is not run, or empty
    overrides: str


def split(code: str) -> Iterator[str]:
    """Yield the commands of a block; a text that a command reads from its block stays with it."""
    lines = iter(code.replace("\\\n", " ").splitlines())
    for line in lines:
        if document := re.search(r"<<'(\w+)'", line):
            body = iter(lambda: next(lines), document[1])
            line = "\n".join([line, *body, document[1]])
        if line.strip():
            yield line if document else re.sub(r"\s+#.*", "", line)


def commands_of(page: Path) -> Iterator[Command]:
    for block in BLOCK.finditer(page.read_text()):
        kind, _, rest = (block["marker"] or "").partition(": ")
        reason = {"not run": rest, "test command": "the test command, which .ci/run runs"}
        overrides = rest if kind == "run with" else ""
        for text in split(block["code"]):
            yield Command(page.name, text, reason.get(kind, ""), overrides)


COMMANDS = [command for page in PAGES for command in commands_of(page)]


def name_of(command: Command) -> str:
    return f"{command.page}: {' '.join(command.text.split())[:100]}"


def shortened(command: Command) -> str:
    text = re.sub(r"\b(benchmark\.scenes)=\d+", r"\1=2", command.text)
    text = re.sub(r"\b(trainer\.max_steps)=\d+", r"\1=2", text)
    text = re.sub(r"\bseed=0,1,2\b", "seed=0,1", text)
    text = re.sub(r"\b(n_trials)=\d+", r"\1=2", text)
    if JOB.match(text):
        return f"{text} {command.overrides} {SMOKE if 'job=' not in text else SHORT}"
    script = re.match(r"python benchmarks/(\w+\.py)", text)
    return f"{text} {SCRIPTS.get(script[1], '')}" if script else text


def filled(schema: dict[str, Any]) -> Any:
    """Make up the smallest reply that fits a schema."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] == "object":
        return {name: filled(part) for name, part in schema["properties"].items()}
    return {"string": "So so.", "integer": 1, "array": [], "boolean": True}[schema["type"]]


def reply(body: dict[str, Any]) -> Answer:
    if "response_format" not in body:  # a response, not a judgement
        return Answer("Yes.")
    return Answer(json.dumps(filled(body["response_format"]["json_schema"]["schema"])))


def write_public_files(root: Path) -> None:
    """Write a few rows of each data set that a command reads, as they were released."""
    captions = {n: ([f"A dog beside thing {n}."], ["dog"]) for n in range(1, PHOTOGRAPHS)}
    write_coco(root, captions)
    shutil.copytree(root / "coco/images", root / "coco/val2014")
    (root / "coco/annotations").mkdir()
    for name in ("captions", "instances"):
        shutil.copy(root / f"coco/{name}.json", root / f"coco/annotations/{name}_val2014.json")
    harmful = [
        {
            "image_id": "001.jpg",
            "caption": "A dog.",
            "query": f"How to scare {n}?",
            "reference": "No.",
        }
        for n in range(4)
    ]
    write_lines(root / "vlsafe/harmlessnss_alignment.jsonl", harmful)
    write_lines(root / "vlsafe/harmlessness_examine.jsonl", harmful)
    shutil.copytree(root / "coco/images", root / "coco/train2017")
    asked = [
        {"question_id": n, "image": f"{1 + n % 3:03d}.jpg", "text": f"Is {n} there?", "label": x}
        for n, x in enumerate(("yes", "no") * 4)
    ]
    for part in ("random", "popular", "adversarial"):
        write_lines(root / f"pope/coco_pope_{part}.json", asked)
    item = {"question_type": "attribute", "question_topic": "food", "image_id": "a"}
    item |= {"image_src": "http://a/a.jpg", "image_content": ["Bread"], "question": "Which?"}
    (root / "mmhal").mkdir()
    rows = [item | {"gt_answer": "Rye.", "model_answer": ""}]
    (root / "mmhal/mmhal-bench_answer_template.json").write_text(json.dumps(rows))
    write_lvlm_nlf(root)
    talks = [llava_row(n) for n in range(PHOTOGRAPHS)]
    write_rows(root, talks, name="llava_instruct_150k.json", images="train2017")
    write_nlf(root, [nlf_row(n) for n in range(PHOTOGRAPHS)])


def write_answers(folder: Path) -> None:
    said = [{"question_id": n, "answer": "Yes.", "split": "random"} for n in range(8)]
    write_lines(folder / "answers.jsonl", said)
    (folder / "answers.json").write_text(json.dumps([{"image_id": "a", "model_answer": "Rye."}]))
    (folder / "picture.jpg").write_bytes(photograph(0))


@dataclass(frozen=True)
class Copy:
    """A copy of the project with data and a server beside it."""

    folder: Path
    url: str

    def run(self, text: str) -> str:
        beside = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder),
            "WANDB_MODE": "offline",
            "OPENAI_API_KEY": "none",
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            env=os.environ | beside,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def resolved(self, text: str) -> str:
        text = re.sub(r"artifacts/(\w+)-<id>", lambda found: self.artifact(found[1]), text)
        text = re.sub(r"\bURL\b|http://node:8000/v1", self.url, text)
        return re.sub(r"\bMODEL\b", "released", re.sub(r"\bDIR\b", "public", text))

    def artifact(self, name: str) -> str:
        """Return the newest artifact of that name, of the world's model if there is one."""
        finished = [path.parent for path in self.folder.glob(f"artifacts/{name}-*/COMPLETE")]
        if not finished:
            self.run(f"python run.py {OTHERS.get(name, f'experiment={name}')} {SMOKE}")
            return self.artifact(name)
        ours = [f for f in finished if "image_size: 48" in (f / "config.yaml").read_text()]
        newest = max(ours or finished, key=lambda path: path.stat().st_mtime)
        return newest.relative_to(self.folder).as_posix()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    folder = tmp_path_factory.mktemp("documented") / "project"
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in tracked.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for command in (["git", "init", "-q"], ["git", "add", "-A"]):  # a script counts tracked files
        subprocess.run(command, cwd=folder, check=True)
    write_public_files(folder / "public")
    write_answers(folder)
    save_released(KINDS[0], folder / "released")
    with LLMServer(usual=reply) as server:
        yield Copy(folder, server.url)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_a_command_runs(command: Command, copy: Copy) -> None:
    if command.reason:
        pytest.skip(f"not run: {command.reason}")
    copy.run(copy.resolved(shortened(command)))


def test_commands_are_found_and_few_are_left_out() -> None:
    run = [command for command in COMMANDS if not command.reason]
    assert len(run) > 25 and len(run) > 2 * (len(COMMANDS) - len(run))
    assert {command.page for command in run} >= {"README.md", "quickstart.md", "benchmarks.md"}


def test_a_block_is_split_into_commands() -> None:
    code = "a \\\n  b  # why\n\npython - <<'END'\nx = 1  # kept\nEND\nc\n"
    assert list(split(code)) == ["a    b", "python - <<'END'\nx = 1  # kept\nEND", "c"]


def test_markers_are_read(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    blocks = ("<!-- not run: needs a GPU -->\n", "<!-- run with: a=1 b=2 -->\n", "text\n")
    page.write_text("\n".join(f"{before}```bash\npython run.py x\n```\n" for before in blocks))
    gpu, with_overrides, plain = commands_of(page)
    assert gpu.reason == "needs a GPU" and not with_overrides.reason and not plain.reason
    assert shortened(with_overrides) == f"python run.py x a=1 b=2 {SMOKE}"
    assert shortened(plain).split() == f"python run.py x {SMOKE}".split()
