"""A web server on this machine that serves a folder, with or without byte ranges, well or badly."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

Fault = int | Literal["stall", "close", "half", "other range", "truncate"]


class WebServer:
    """Serve `folder`; the first requests for shards meet `faults`, one after the other.

    A fault is a status to answer with; stall: say nothing; close: hang up in the middle of a body
    whose length was announced; half: send and announce half of the range; truncate: end an
    unannounced length early; other range: answer a range that was not asked for.
    """

    def __init__(
        self,
        folder: Path,
        *,
        faults: Sequence[Fault] = (),
        ranges: bool = True,
        user: str = "",
        address: str = "127.0.0.1",
    ) -> None:
        self.folder, self.faults, self.ranges = folder, list(faults), ranges
        self.authorization = user
        self.seen: list[tuple[str, str]] = []  # path with query, range
        self.sent: dict[str, int] = {}  # bytes of bodies by file name
        self.always: dict[str, int] = {}  # status by file name
        self.stalled = threading.Event()
        self._lock = threading.Lock()
        self._http = _Server((address, 0), _Handler)
        self._http.web = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def host(self) -> str:
        address, port = self._http.server_address[:2]
        return f"{address!s}:{port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def count(self, name: str, size: int) -> None:
        with self._lock:
            self.sent[name] = self.sent.get(name, 0) + size

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stalled.set()
        self._http.shutdown()
        self._http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    web: WebServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        web, name = self.server.web, self.path.partition("?")[0]
        web.seen.append((self.path, self.headers.get("Range", "")))
        fault = web.faults.pop(0) if web.faults and name.endswith(".tar") else None
        path = web.folder / name.lstrip("/")
        if web.authorization and self.headers.get("Authorization") != web.authorization:
            self.answer(401, b"")
        elif (status := web.always.get(path.name)) is not None:
            self.answer(status, b"no")
        elif fault == "stall":
            web.stalled.wait(30)
            self.close_connection = True
        elif isinstance(fault, int):
            self.answer(fault, b"<html>try later</html>")
        elif not path.is_file():
            self.answer(404, b"not here")
        else:
            self.serve(path, fault)

    def serve(self, path: Path, fault: Fault | None) -> None:
        data = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None or not self.server.web.ranges:
            return self.answer(200, data)
        begin, end = int(asked[1]), min(int(asked[2]) + 1, len(data))
        if begin >= len(data):
            return self.answer(416, b"")
        if fault == "other range":
            begin -= 512
        part, length = data[begin:end], end - begin
        if fault in ("close", "half"):
            part = part[: length // 2]
        if fault == "half":
            length = len(part)
        extra = {"Content-Range": f"bytes {begin}-{begin + length - 1}/{len(data)}"}
        if fault == "truncate":
            part, length = part[:-700], -1
        self.answer(206, part, length=length, extra=extra)

    def answer(
        self,
        status: int,
        body: bytes,
        *,
        length: int | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        try:
            self.send_response(status)
            for name, value in (extra or {}).items():
                self.send_header(name, value)
            if length == -1:
                self.send_header("Connection", "close")
            else:
                self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            name = self.path.partition("?")[0].rpartition("/")[2]
            self.server.web.count(name, len(body))  # before whoever asked can go on
            self.wfile.write(body)
            if length is not None and length != len(body):
                self.close_connection = True
        except OSError:  # whoever asked is gone
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass
