"""A page of a small model in a process of its own, whose memory is then the page's alone."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from dress.feedback.feedback_folder import FeedbackFolder
from dress.page.chat_service import ChatService
from dress.page.streamer import Streamer
from tests.integration.small import answered_samples, make_assistant


def main(folder: str) -> None:
    from dress.page.chat_page import ChatPage
    from dress.page.server import serving

    torch.set_num_threads(1)
    assistant = make_assistant(answered_samples())
    service = ChatService(
        streamers=[Streamer(name="one", assistant=assistant, max_new_tokens=4)],
        folder=FeedbackFolder(Path(folder)),
    )
    page = serving(
        lambda: ChatPage(service, commands=[]).blocks,
        host="127.0.0.1",
        port=0,
        per_minute=1_000_000,
    )
    with page as address:
        print(address, flush=True)
        time.sleep(3600)


if __name__ == "__main__":
    main(sys.argv[1])
