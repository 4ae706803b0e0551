"""The served page without a browser: no route leads to a file, and kill -9 loses nothing."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dress.errors import InputError
from dress.feedback.feedback_folder import FeedbackFolder
from dress.page.chat_service import ChatService
from dress.page.streamer import Streamer
from tests.data.nlf_files import nlf_row, write_nlf
from tests.integration.own_data import run_job
from tests.integration.small import answered_samples, make_assistant

pytest.importorskip("gradio", reason="the extra `chat` is not installed")
ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = (
    "/etc/passwd",
    "../../../../../../etc/passwd",
    "..%2f..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "http://127.0.0.1:1/x",
    "file:///etc/passwd",
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from dress.page.chat_page import ChatPage
    from dress.page.server import serving

    assistant = make_assistant(answered_samples())
    service = ChatService(
        streamers=[Streamer(name="one", assistant=assistant, max_new_tokens=3)],
        folder=FeedbackFolder(tmp_path_factory.mktemp("feedback")),
    )

    def build() -> object:
        return ChatPage(service, commands=[]).blocks

    with serving(build, host="127.0.0.1", port=0, per_minute=100_000) as served:  # type: ignore[arg-type]
        yield served


def requested(address: str, method: str, path: str) -> tuple[int, str]:
    """Ask for a path as it stands: no client makes another of it."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=120)
    connection.request(method, path, body=b"{}" if method == "POST" else None)
    reply = connection.getresponse()
    try:
        return reply.status, reply.read(4096).decode(errors="replace")
    finally:
        connection.close()


def test_no_route_of_gradio_leads_to_a_file(address: str) -> None:
    from gradio import routes

    source = Path(routes.__file__).read_text()
    found = re.findall(r'@(router|app)\.\w+\(\s*f?"([^"]+)"', source)
    paths = {f"{'/gradio_api' if kind == 'router' else ''}{path}" for kind, path in found}
    names = sorted(path for path in paths if "{" in path)
    assert {"/gradio_api/file={path_or_url:path}", "/assets/{path:path}"} < set(names)
    for path in names:
        begin = path.partition("{")[0]
        if "heartbeat" in begin:
            continue  # it streams for ever, and serves no file
        for outside in OUTSIDE:
            for method in ("GET", "HEAD", "POST"):
                code, body = requested(address, method, begin + outside)
                assert code in (400, 403, 404, 405, 422), (method, begin + outside, code)
                assert "root:" not in body


def test_an_upload_that_no_page_took_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    from dress.page.annotation_page import AnnotationPage
    from dress.page.server import UPLOADS, serving

    before = os.environ.get(UPLOADS, "")
    monkeypatch.setattr("dress.page.annotation_page.UNUSED_S", (1, 1))
    queue: Any = None  # nobody begins
    with serving(
        lambda: AnnotationPage(queue, users={}).blocks, host="127.0.0.1", port=0, per_minute=9
    ) as served:
        uploads, deadline = Path(os.environ[UPLOADS]), time.monotonic() + 120
        part = b'--b\r\ncontent-disposition: form-data; name="files"; filename="a.png"\r\n\r\nx'
        headers = {"content-type": "multipart/form-data; boundary=b"}
        connection = http.client.HTTPConnection(urlsplit(served).netloc, timeout=120)
        connection.request("POST", "/gradio_api/upload", part + b"\r\n--b--\r\n", headers)
        assert connection.getresponse().status == 200
        connection.close()
        while [*uploads.rglob("*.png")]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    monkeypatch.setenv(UPLOADS, before)  # of the page of the other tests
    assert not uploads.exists()


def test_a_page_that_cannot_be_served_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    from gradio import Blocks

    from dress.page.server import UPLOADS, serving

    monkeypatch.setenv(UPLOADS, os.environ[UPLOADS])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    taken = urlsplit(address).port or 0
    page = serving(Blocks, host="127.0.0.1", port=taken, per_minute=9)
    with pytest.raises(InputError, match=f"127.0.0.1:{taken}"), page:
        pass
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_ten_kills_lose_nothing_that_the_page_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from chat_page import Tab

    write_nlf(tmp_path / "data", [nlf_row(number) for number in range(6)])
    artifact = run_job(tmp_path, "experiment=dress_stage2", "data=lvlm_nlf")
    command = [
        *(sys.executable, "run.py", "job=chat", f"artifact={artifact.path}", "chat.port=0"),
        *(f"chat.feedback={tmp_path / 'said'}", f"paths.artifacts={tmp_path / 'artifacts'}"),
        *("chat.max_new_tokens=8", "chat.requests_per_minute=100000"),
    ]
    rng, confirmed = random.Random(0), []

    def talk(address: str) -> None:
        while True:
            try:
                tab = Tab(address)
                tab.draw()
                tab.ask("What?")
                if tab.judge(helpfulness=1, honesty=2, harmlessness=3):
                    confirmed.append((tab.state["session"], tab.state["turn"]))
            except (OSError, http.client.HTTPException, ValueError):
                return  # it was killed

    for _ in range(10):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("chat: "))
        users = [threading.Thread(target=talk, args=(line.split()[1],)) for _ in range(2)]
        for user in users:
            user.start()
        time.sleep(rng.uniform(1, 4))
        process.kill()
        process.wait()
        for user in users:
            user.join(30)
    folder = FeedbackFolder(tmp_path / "said")
    for name in ("sessions.jsonl", "lvlm_nlf.jsonl"):
        assert all(map(json.loads, (folder.root / name).read_text().splitlines()))
    for session, turn in confirmed:
        conversation = folder.session(session)
        (answer,) = (a for a in conversation.answers.values() if a.turn == turn)
        assert conversation.judged[answer.answer, ""].ratings["honesty"] == 2
    assert len(confirmed) > 10
