"""job=chat: a page on which a person talks to one or two models and says what is wrong."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from hydra.utils import get_class, instantiate

from dress.artifact import Artifact
from dress.errors import InputError
from dress.feedback.annotator import Annotator
from dress.feedback.feedback_folder import FeedbackFolder
from dress.interrupts import interruptible
from dress.jobs.job import Job, open_model
from dress.page.guard import token_for
from dress.page.human import HumanAnnotator, check_extra
from dress.settings import Positive, Whole


@dataclass(frozen=True, kw_only=True)
class Chatting:
    """How the page is served, and where what is said is kept (conf/chat)."""

    host: str
    port: Whole
    feedback: str
    beside: str | None
    forget: str | int | None
    max_new_tokens: Positive
    requests_per_minute: Positive


def run(job: Job) -> None:
    chat = Chatting(**job.node("chat"))
    if chat.forget is not None:
        folder = FeedbackFolder(Path(chat.feedback))
        gone = folder.forget(lambda session: chat.forget in ("all", session))
        print(f"{gone} sessions were deleted from {folder.root}", flush=True)
        return
    check_extra()
    token_for(chat.host, os.environ)
    if not job.cfg.artifact:
        raise InputError("artifact is not set: give the model to talk to, artifact=<directory>.")
    job.refuse_model_overrides("only chat.* and annotator.* can")
    artifacts = [open_model(path) for path in (job.cfg.artifact, chat.beside) if path]
    _serve(job, chat, FeedbackFolder(Path(chat.feedback)), artifacts)


def _serve(job: Job, chat: Chatting, folder: FeedbackFolder, artifacts: list[Artifact]) -> None:
    from dress.loading import load_artifact  # torch: seconds
    from dress.modeling.devices import configure
    from dress.page.chat_page import ChatPage
    from dress.page.desk import Desk
    from dress.page.server import serving
    from dress.page.speaker import Speaker

    configure(matmul_precision=job.cfg.matmul_precision, accelerator=job.cfg.trainer.accelerator)
    speakers = [
        Speaker(name=a.name, assistant=load_artifact(a), max_new_tokens=chat.max_new_tokens)
        for a in artifacts
    ]
    desk = Desk(speakers=speakers, folder=folder, annotator=_annotator(job))
    said = commands(folder.root, artifacts[0])
    with (
        interruptible(f"the page is closed; all that was said is in {folder.root}"),
        serving(
            lambda: ChatPage(desk, commands=said).blocks,
            host=chat.host,
            port=chat.port,
            per_minute=chat.requests_per_minute,
        ) as address,
    ):
        print(f"chat: {address} (what is said goes to {folder.root}; Ctrl-C ends)", flush=True)
        while True:
            time.sleep(1)


def _annotator(job: Job) -> Annotator | None:
    """Return what proposes feedback, without the noise of an oracle; people propose none."""
    node = job.cfg.annotator
    if issubclass(get_class(node._target_), HumanAnnotator):
        return None
    sure = {"noise": 0.0} if "noise" in node else {}
    annotator: Annotator = instantiate(node, _convert_="all", **sure)
    return annotator


def commands(folder: Path, artifact: Artifact) -> list[str]:
    """Say how the next round is trained on what was said."""
    data = f"data=lvlm_nlf data.root={folder} init_from={artifact.path}"
    return [f"python run.py experiment={name} {data}" for name in ("dress_stage2", "dress_stage3")]
