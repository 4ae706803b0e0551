"""job=chat: a page on which a person talks to one or two models and says what is wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.utils import get_class, instantiate

from dress.artifact import Artifact
from dress.errors import InputError
from dress.feedback.annotator import Annotator
from dress.feedback.feedback_folder import FeedbackFolder
from dress.interrupts import interruptible
from dress.jobs.job import Job, open_model
from dress.jobs.response_source import open_assistant
from dress.page.access import check_extra, token_for
from dress.page.human import HumanAnnotator
from dress.settings import Positive, Whole

if TYPE_CHECKING:
    from dress.page.streamer import Streamer


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """How the page is served, and where what is said is kept (conf/chat)."""

    host: str
    port: Whole
    feedback: str
    beside: str | None
    forget: str | int | None
    max_new_tokens: Positive
    requests_per_minute: Positive


def run(job: Job) -> None:
    chat = ChatSettings(**job.node("chat"))
    if chat.forget is not None:
        forget(FeedbackFolder(Path(chat.feedback)), str(chat.forget))
        return
    check_extra()
    token_for(chat.host, os.environ)
    if not job.cfg.artifact:
        raise InputError("artifact is not set: give the model to talk to, artifact=<directory>.")
    job.refuse_model_overrides("only chat.* and annotator.* can")
    artifacts = [open_model(path) for path in (job.cfg.artifact, chat.beside) if path]
    serve(job, chat, artifacts)


def forget(folder: FeedbackFolder, session: str) -> None:
    gone = folder.forget(lambda name: session in ("all", name))
    if not gone and session != "all":
        raise InputError(
            f"{folder.root} has no session {session}: give the `session` of one of the lines of "
            "its sessions.jsonl, or all."
        )
    print(f"{gone} sessions were deleted from {folder.root}", flush=True)


def serve(job: Job, chat: ChatSettings, artifacts: Sequence[Artifact]) -> None:
    from dress.page.chat_page import ChatPage
    from dress.page.chat_service import ChatService
    from dress.page.server import serving

    folder = FeedbackFolder(Path(chat.feedback))
    streamers = load_streamers(job, artifacts, max_new_tokens=chat.max_new_tokens)
    service = ChatService(streamers=streamers, folder=folder, annotator=_annotator(job))
    page = serving(
        lambda: ChatPage(service, commands=commands(folder.root, artifacts[0])).blocks,
        host=chat.host,
        port=chat.port,
        per_minute=chat.requests_per_minute,
    )
    closed = f"the page is closed; all that was said is in {folder.root}"
    with interruptible(closed), page as address:
        print(f"chat: {address} (what is said goes to {folder.root}; Ctrl-C ends)", flush=True)
        while True:
            time.sleep(1)


def load_streamers(
    job: Job, artifacts: Sequence[Artifact], *, max_new_tokens: int
) -> list[Streamer]:
    """Load the models onto the device of this job."""
    from dress.page.streamer import Streamer  # imports torch

    return [
        Streamer(
            name=artifact.name,
            assistant=open_assistant(job, artifact),
            max_new_tokens=max_new_tokens,
        )
        for artifact in artifacts
    ]


def _annotator(job: Job) -> Annotator | None:
    """Return what proposes feedback, without the noise of an oracle; people propose none."""
    node = job.cfg.annotator
    if issubclass(get_class(node._target_), HumanAnnotator):
        return None
    exact = {"noise": 0.0} if "noise" in node else {}
    annotator: Annotator = instantiate(node, _convert_="all", **exact)
    return annotator


def commands(folder: Path, artifact: Artifact) -> list[str]:
    """Say how the next round is trained on what was said."""
    data = f"data=lvlm_nlf data.root={folder} init_from={artifact.path}"
    return [f"python run.py experiment={name} {data}" for name in ("dress_stage2", "dress_stage3")]
