"""lmms-eval runs its task `pope` on a tiny artifact, from its command line and without network."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from small import feedback_samples, make_assistant, model_config

import dress
from dress.artifact import ArtifactStore
from dress.errors import InputError
from dress.loading import save
from dress.records import Prompt
from dress.types import Turn

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed (docs/benchmarks.md)")

QUESTIONS = ["Is there a dog?", "Is there a red circle in the image?", "Is it?", "Is there a cat?"]
POST_PROMPT = "\nAnswer the question using a single word or phrase."  # of its task `pope`
LIMIT_S = 300


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = model_config()
    with ArtifactStore(tmp_path_factory.mktemp("store")).build(
        "model-ab", kind="model", config=config, fingerprint="ab", parents={}, inputs={}
    ) as building:
        save(make_assistant(feedback_samples(2)), building.path, spec=config["model"])
    return building.artifact.path


def pictures() -> list[bytes]:
    return [sample.images[0] for sample in feedback_samples(4)]


def said_by_us(artifact: Path, condition: str, tokens: int) -> list[str]:
    """Answer the task's prompts by the artifact itself."""
    assistant = dress.load(artifact)
    made = []
    for question, picture in zip(QUESTIONS, pictures(), strict=True):
        stream = io.BytesIO()
        Image.open(io.BytesIO(picture)).convert("RGB").save(stream, "PNG")
        turns = (Turn(question + POST_PROMPT),)
        prompt = Prompt((stream.getvalue(),), turns, assistant.condition.target(condition))
        ((text,),) = assistant.generate([prompt], max_new_tokens=tokens)
        made.append(text)
    return made


def write_task(folder: Path, answers: list[str]) -> None:
    """The installed task `pope` on rows of our own, as its data set has them."""
    import datasets
    import lmms_eval.tasks

    rows = {
        "question_id": [str(n) for n in range(4)],
        "question": QUESTIONS,
        "answer": answers,
        "image": [{"bytes": picture, "path": None} for picture in pictures()],
    }
    features = datasets.Features(
        {name: datasets.Value("string") for name in ("question_id", "question", "answer")}
        | {"image": datasets.Image()}
    )
    (folder / "data").mkdir(parents=True)
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet(str(folder / "data/test-00000-of-00001.parquet"))
    released = Path(lmms_eval.tasks.__file__).parent / "pope"
    (folder / "utils.py").write_text((released / "utils.py").read_text())
    text = (released / "pope.yaml").read_text()
    text = text.replace("lmms-lab-encoder/POPE", str(folder)).replace('"pope"', '"pope_here"')
    (folder / "pope_here.yaml").write_text(text.replace("token: True", "token: False"))


@pytest.mark.parametrize("condition", ["best", "1"])
def test_a_task_from_the_command_line(tmp_path: Path, artifact: Path, condition: str) -> None:
    write_task(tmp_path / "task", ["yes", "no", "yes", "no"])
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    options = {
        "model": "dress",
        "model_args": f"artifact={artifact},condition={condition}",
        "tasks": "pope_here",
        "include_path": str(tmp_path / "task"),
        "batch_size": "3",
        "device": "cpu",
        "gen_kwargs": "max_new_tokens=5",
        "output_path": str(tmp_path / "results"),
    }
    given = [word for name, value in options.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, "-m", "lmms_eval", *given, "--log_samples"],
        cwd=tmp_path,
        env=os.environ | offline | {"HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0 and "Error during evaluation" not in printed, printed[-3000:]
    (path,) = (tmp_path / "results").rglob("*samples_pope_here.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows.sort(key=lambda row: row["doc_id"])
    said = [row["filtered_resps"] for row in rows]
    assert said == said_by_us(artifact, condition, 5)
    (path,) = (tmp_path / "results").rglob("*results.json")
    results = json.loads(path.read_text())["results"]["pope_here"]
    right = sum(a.lower().strip() == b for a, b in zip(said, ["yes", "no"] * 2, strict=True))
    assert results["pope_accuracy,none"] == right / 4


def model(artifact: Path, **options: Any) -> Any:
    from dress.evaluation.lmms_model import DressModel

    return DressModel(str(artifact), device="cpu", **options)


def request(number: int, settings: dict[str, Any], shown: Any = None) -> Any:
    def images_of(document: dict[str, Any]) -> Any:
        return shown if shown is not None else [document["image"]]

    return SimpleNamespace(
        args=(QUESTIONS[number] + POST_PROMPT, settings, images_of, number, "t", "test")
    )


def with_pictures(adapter: Any) -> Any:
    opened = [{"image": Image.open(io.BytesIO(p)).convert("RGB")} for p in pictures()]
    adapter.task_dict = {"t": {"test": opened}}
    return adapter


def test_answers_keep_their_order_and_settings(artifact: Path) -> None:
    adapter = with_pictures(model(artifact, batch_size=2))
    short, long = {"max_new_tokens": 2}, {"max_new_tokens": 8, "temperature": 0, "top_p": None}
    requests = [request(n, (short, long)[n % 2]) for n in range(4)]
    whole = said_by_us(artifact, "best", 8)
    expected = [said_by_us(artifact, "best", (2, 8)[n % 2])[n] for n in range(4)]
    assert adapter.generate_until(requests) == expected
    stop = whole[0][2:4]
    (cut,) = adapter.generate_until([request(0, long | {"until": ["zzz", stop]})])
    assert cut == whole[0][: whole[0].index(stop)]
    (cut,) = adapter.generate_until([request(0, long | {"until": stop, "do_sample": False})])
    assert cut == whole[0][: whole[0].index(stop)]
    assert len(adapter.generate_until([request(0, short, shown=[])])) == 1  # no image


def test_refusals(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = with_pictures(model(artifact))
    with pytest.raises(InputError, match="sets num_beams=4"):
        adapter.generate_until([request(0, {"num_beams": 4})])
    with pytest.raises(InputError, match="sets length_penalty=1"):
        adapter.generate_until([request(0, {"length_penalty": 1})])
    with pytest.raises(InputError, match="t shows str: the model dress reads images only"):
        adapter.generate_until([request(0, {}, shown=["film.mp4"])])
    for refused in (adapter.loglikelihood, adapter.generate_until_multi_round):
        with pytest.raises(InputError, match="generate_until"):
            refused([])
    with pytest.raises(InputError, match="batch_size is 'auto'"):
        model(artifact, batch_size="auto")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="one process"):
        model(artifact)
