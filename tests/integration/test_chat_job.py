"""job=chat and annotator=human as commands: what they refuse, delete, and what is trained on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from own_data import run_job

from dress.data.shard_index import read_all
from dress.feedback.conversations import Judged
from dress.feedback.feedback_folder import FeedbackFolder
from dress.jobs.annotate import _nodes
from dress.jobs.chat import commands, speakers
from dress.jobs.job import Job
from dress.loading import load
from dress.page.guard import TOKEN
from tests.data.coco_files import photograph
from tests.feedback.talk import answered, asked, judged, opened
from tests.processes import ROOT, Process

Refused = Callable[..., str]


@pytest.fixture
def extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the packages of the extra seem to be there: none of these commands gets to use them."""
    for name in ("gradio", "krippendorff"):
        module = ModuleType(name)
        module.__spec__ = sys.__spec__
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["job=chat"], "artifact is not set"),
        (["job=chat", "artifact=x", "chat.host=0.0.0.0"], TOKEN),
        (["job=chat", "artifact=x", "chat.share=true"], "chat.share"),
        (["job=chat", "artifact=x", "chat.port=-1"], "chat.port"),
        (["job=chat", "artifact=x", "model.max_length=9"], "model.max_length"),
        (["job=train", "experiment=dress_stage2", "chat.port=1"], "job=chat or job=annotate"),
    ],
)
@pytest.mark.usefixtures("extra")
def test_a_command_that_cannot_serve_ends_in_a_sentence(
    refused: Refused, arguments: list[str], said: str
) -> None:
    assert said in refused(*arguments)


@pytest.mark.slow
def test_twenty_judged_answers_are_what_the_next_round_says(tmp_path: Path) -> None:
    """Ten questions, two answers each: one is rated 4 and one 1, whichever is the longer."""
    folder = FeedbackFolder(tmp_path / "data")
    said = {}
    for number in range(10):
        question = f"What lies {('left', 'right')[number % 2]} of number {number}?"
        texts = [f"A thing {number}.", f"There is a large thing {number} beside a small one."]
        best = number % 2
        folder.add(opened(folder, asked(f"t{number}", text=question), picture=number))
        for n, text in enumerate(texts):
            rating = 4 if n == best else 1
            folder.add(answered(f"a{number}-{n}", turn=f"t{number}", text=text))
            ratings = dict.fromkeys(("helpfulness", "honesty", "harmlessness"), rating)
            folder.add(judged(f"a{number}-{n}", **ratings))
        said[photograph(number)] = (question, texts[best], texts[1 - best])
    steps = ("trainer.max_steps=300", "optimizer.lr=2.0e-3", "scheduler.warmup_steps=20")
    artifact = run_job(tmp_path, "experiment=dress_stage2", "data=lvlm_nlf", *steps)
    (data,) = (tmp_path / "artifacts").glob("dress_feedback-*")
    trained = {sample.images[0] for sample in read_all(data / "train")}
    model = load(artifact.path)
    right = {
        image: (
            model.respond(image, question, condition="best") == best,
            model.respond(image, question, condition="worst") == worst,
        )
        for image, (question, best, worst) in said.items()
    }
    held_out = [pair for image, pair in right.items() if image not in trained]
    print(f"held-out prompts, right under best and worst: {held_out}")
    assert len(trained) >= 8 and all(right[image] == (True, True) for image in trained)


def test_a_missing_extra_is_named(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install -e '.[chat]'" in refused("job=chat", "artifact=x")


def test_a_session_is_deleted_by_a_command(tmp_path: Path) -> None:
    folder = FeedbackFolder(tmp_path / "artifacts/chat")
    for number, session in enumerate(("12", "two")):
        folder.add(opened(folder, asked(session, session=session), picture=number))
    left = []
    for which, code, outcome in (
        ("tow", 1, f"{folder.root} has no session tow"),
        ("12", 0, "1 sessions were deleted"),
        ("all", 0, "1 sessions were deleted"),
    ):
        arguments = [
            "job=chat",
            f"chat.forget={which}",
            f"paths.artifacts={tmp_path / 'artifacts'}",
        ]
        process = Process(ROOT / "run.py", arguments, environment=os.environ, cwd=tmp_path)
        said, errors = process.communicate(120)
        assert process.returncode == code and outcome in said + errors, errors
        left.append([*FeedbackFolder(folder.root).conversations])
    assert left == [["12", "two"], ["two"], []]


def test_where_people_judge_names_no_artifact() -> None:
    names = []
    for where in (
        ["chat.port=1", "chat.feedback=one"],
        ["chat.host=::1", "chat.requests_per_minute=9"],
        ["annotator.overlap=2"],
    ):
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            typed = ["experiment=dress_feedback", "annotator=human", *where]
            job = Job(cfg=compose("run", typed), overrides=typed)
            names.append(_nodes(job, job.node("feedback")))
    assert names[0] == names[1] != names[2]


def test_what_people_said_trains_stages_2_and_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = FeedbackFolder(tmp_path / "data")
    for number in range(6):
        first, second, session = f"a{number}", f"b{number}", f"s{number}"
        folder.add(opened(folder, asked(first, session=session), picture=number))
        folder.add(answered(first, turn=first, session=session))
        folder.add(
            Judged(
                session=session,
                answer=first,
                ratings={"helpfulness": 2, "honesty": 1},
                refinement="Look again.",
            )
        )
        folder.add(asked(second, session=session, parent=first, text="Look again."))
        folder.add(answered(second, turn=second, session=session, text="A cat."))
        folder.add(judged(second, session=session, helpfulness=4, honesty=4, harmlessness=4))
    for stage in ("dress_stage2", "dress_stage3"):
        artifact = run_job(tmp_path, f"experiment={stage}", "data=lvlm_nlf")
        assert artifact.metrics["val/loss"] > 0
    assert f"data.root={folder.root}" in commands(folder.root, artifact)[0]
    monkeypatch.setattr("dress.modeling.devices.own_device", torch.device)
    cfg = OmegaConf.create(
        {"matmul_precision": "highest", "packages": [], "trainer": {"accelerator": "meta"}}
    )
    (speaker,) = speakers(Job(cfg=cfg, overrides=[]), [artifact], max_new_tokens=1)
    assert {p.device.type for p in speaker.assistant.model.parameters()} == {"meta"}
