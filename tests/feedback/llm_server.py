"""A chat server on this machine that answers by a script, as good and bad servers do."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Answer:
    """One HTTP response; `content` stands in a chat completion, `body` replaces all of it."""

    content: str | None = None
    body: str | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    close: bool = False  # hang up without a word
    finish: str = "stop"
    content_type: str = "application/json"


def judged(rating: int = 3, critique: str = "So so.", **changed: Any) -> str:
    """Write a valid reply on all aspects, the named ones changed."""
    aspects = ("helpfulness", "honesty", "harmlessness")
    usual = {"rating": rating, "critique": critique, "refinement": "Look again."}
    return json.dumps(dict.fromkeys(aspects, usual) | changed)


def fingerprint(body: Mapping[str, Any]) -> str:
    """Name a question in the reply to it."""
    text = json.dumps(body["messages"], sort_keys=True)
    return "q" + hashlib.sha256(text.encode()).hexdigest()[:16]


def usual(body: Mapping[str, Any]) -> Answer:
    name = fingerprint(body)
    return Answer(judged(rating=1 + int(name[1:], 16) % 4, critique=f"This is {name}."))


class LLMServer:
    """Answer the first requests by `script`, as they arrive, and others `usual`ly."""

    def __init__(
        self,
        script: Sequence[Answer] = (),
        *,
        usual: Callable[[Mapping[str, Any]], Answer] = usual,
        delay: float = 0.0,
    ) -> None:
        self.script, self.usual, self.delay = list(script), usual, delay
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        self.paths: set[str] = set()
        self.now = self.most = 0
        self.lock = threading.Lock()
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.llm = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def questions(self) -> list[str]:
        return [fingerprint(body) for body in self.bodies]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str, key: str | None, body: dict[str, Any]) -> Answer:
        with self.lock:
            self.paths.add(path)
            self.keys.append(key)
            self.times.append(time.monotonic())
            self.bodies.append(body)
            scripted = self.script.pop(0) if self.script else None
        return scripted or self.usual(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    llm: LLMServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        llm = self.server.llm
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with llm.lock:
            llm.now += 1
            llm.most = max(llm.most, llm.now)
        answer = llm.answer(self.path, self.headers["Authorization"], body)
        time.sleep(answer.delay + llm.delay)
        with llm.lock:
            llm.now -= 1
        if answer.close:
            self.close_connection = True
        else:
            self.send(answer)

    def send(self, answer: Answer) -> None:
        data = (answer.body if answer.body is not None else _completion(answer)).encode()
        try:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:  # whoever asked is gone
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def _completion(answer: Answer) -> str:
    message = {"role": "assistant", "content": answer.content, "refusal": None}
    choice = {"index": 0, "finish_reason": answer.finish, "message": message, "logprobs": None}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    about = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
    return json.dumps({**about, "choices": [choice], "usage": usage})
