"""job=chat and annotator=human as commands: what they refuse, delete, and what is trained on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
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
from dress.jobs.chat import commands, load_streamers
from dress.jobs.job import Job
from dress.loading import load
from dress.objectives.conditional_lm import ConditionalLM
from dress.page.access import TOKEN
from dress.types import LossOutput, TokenBatch
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
    (streamer,) = load_streamers(Job(cfg=cfg, overrides=[]), [artifact], max_new_tokens=1)
    assert {p.device.type for p in streamer.assistant.model.parameters()} == {"meta"}


@pytest.mark.slow
def test_stage_3_learns_the_refined_answers_of_a_folder_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve refined answers, of which one is still at fault; and three that are no rows."""
    folder, script = FeedbackFolder(tmp_path / "said"), {}
    for n in range(12):
        session, better = f"s{n}", f"Now there are {n} cats."
        turns = (f"What lies at {n}?", f"A dog {n}.", f"Look at corner {n}.", better)
        script[session] = turns
        folder.add(opened(folder, asked("t1", session=session, text=turns[0]), picture=n))
        folder.add(answered(session=session, text=turns[1]))
        first = Judged(session=session, answer="a1", ratings={"honesty": 1}, refinement=turns[2])
        folder.add(first, asked("t2", session=session, parent="a1", text=turns[2]))
        folder.add(answered(f"b{n}", turn="t2", session=session, text=turns[3]))
        ratings = {"helpfulness": 4, "honesty": 4 if n else 3, "harmlessness": 4}
        folder.add(judged(f"b{n}", session=session, **ratings))
    for n, (what, stopped) in enumerate((("unjudged", False), ("unrated", False), ("cut", True))):
        folder.add(opened(folder, asked(session=what, text=f"Decoy {what}?"), picture=20 + n))
        folder.add(replace(answered(session=what, text=f"Decoy {what}."), stopped=stopped))
    folder.add(Judged(session="unrated", answer="a1", critiques={"overall": "Decoy."}))
    folder.add(judged(session="cut", honesty=4))

    data = (f"data.root={folder.root}", "data=lvlm_nlf")
    parent = run_job(tmp_path, "experiment=dress_stage2", *data)
    learned: set[tuple[str, str]] = set()
    loss, decode = ConditionalLM.__call__, load(parent.path).processor.tokenizer.decode

    def spy(self: ConditionalLM, model: torch.nn.Module, batch: TokenBatch, /) -> LossOutput:
        ids = batch.input_ids.flatten()
        for number, end in enumerate(batch.sequence_end.tolist() if model.training else ()):
            row = torch.arange(len(ids)) // batch.input_ids.shape[1]
            before = batch.subtree_end + batch.input_ids.shape[1] * row.view_as(batch.input_ids)
            node = torch.arange(len(ids))
            is_path = (row == row[end]) & (node <= end) & (before.flatten() > end)
            response = batch.target_ids[batch.target_seq == number]
            learned.add((decode(ids[is_path].tolist()), decode(response.tolist())))
        return loss(self, model, batch)

    monkeypatch.setattr(ConditionalLM, "__call__", spy)
    command = commands(folder.root, parent)[1]
    assert command == (
        f"python run.py experiment=dress_stage3 data=lvlm_nlf data.root={folder.root} "
        f"init_from={parent.path}"
    )
    run_job(tmp_path, *command.split()[2:], "trainer.max_steps=30")
    (built,) = (tmp_path / "artifacts").glob("dress_refinements-*")
    rows = {part: [*read_all(built / part)] for part in ("train", "validation")}
    said = [
        tuple(text for turn in dialogue.turns for text in (turn.user, turn.model))
        for part in rows.values() for sample in part for dialogue in sample.dialogues
    ]  # fmt: skip
    assert sorted(said) == sorted(script.values())
    trained = {s.dialogues[0].turns[-1].model for s in rows["train"]}
    assert {text.removesuffix("</s>").strip() for _, text in learned} == {
        better for _, _, _, better in script.values() if better in trained
    } - {"Now there are 0 cats."}
    for context, response in learned:
        (turns,) = (turns for turns in script.values() if turns[3] in response)
        assert all(text in context for text in turns)
