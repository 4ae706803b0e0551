"""export.push uploads every file with the token, to a hub that stands in on loopback."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from dress.errors import InputError
from dress.jobs.export import push

TOKEN = "hf_secretOfTheTest"


class Hub(ThreadingHTTPServer):
    """As much of the hub as an upload needs; files are plain parts of one commit."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def reply(self, path: str, body: bytes) -> dict[str, Any]:
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return {"url": f"{self.address}/me/model", "name": "me/model"}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if "/preupload/" in path:
            wanted = {"uploadMode": "regular", "shouldIgnore": False}
            return {"files": [{"path": f["path"], **wanted} for f in json.loads(body)["files"]]}
        values = [line["value"] for line in map(json.loads, body.splitlines()[1:])]
        self.files |= {v["path"]: base64.b64decode(v["content"]) for v in values}
        url = f"{self.address}/me/model/commit/1"
        return {"commitUrl": url, "commitOid": "1", "success": True}


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        token = self.headers["Authorization"]
        self.server.tokens.add(token)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if token == f"Bearer {TOKEN}":
            self.answer(self.server.reply(self.path, body))
        else:
            self.answer({"error": "Invalid token"}, status=401)

    def answer(self, value: Any, *, status: int = 200) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", made.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates/bare.jinja").write_text("b")
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "README.md").write_text("---\nlicense: other\n---\n")
    return tmp_path


def test_every_file_arrives(hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push(folder, "me/model")
    wanted = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}
    assert hub.files == wanted and len(wanted) == 3
    created = hub.created[0]
    assert created["name"] == "model" and created["visibility"] == "private"
    assert hub.tokens == {f"Bearer {TOKEN}"}
    said = capsys.readouterr()
    assert f"pushed: {hub.address}/me/model/commit/1" in said.out
    assert TOKEN not in said.out + said.err


@pytest.mark.parametrize(("name", "token"), [("me/model", "hf_wrong"), ("no such name", TOKEN)])
def test_a_failure_is_one_sentence_without_the_token(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=f"export.push={name} failed") as error:
        push(folder, name)
    told = str(error.value)
    assert str(folder) in told and "\n" not in told and token not in told
    assert hub.files == {}


def test_no_network_is_one_sentence(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"export.push=me/model failed"):
        push(folder, "me/model")
