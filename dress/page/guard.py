"""What stands before the page: who may ask, what for, how much and how often."""

from __future__ import annotations

import hmac
import json
import re
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dress.errors import InputError
from dress.feedback.endpoint import is_loopback

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN = "DRESS_CHAT_TOKEN"  # an environment variable
SHORTEST_TOKEN = 16
_TOKEN = re.compile(rf"[A-Za-z0-9_-]{{{SHORTEST_TOKEN},}}")  # what a cookie holds as it is
COOKIE = "dress_chat"
MOST_BYTES = 24 * 2**20  # of a request
MOST_CLIENTS = 10_000  # that are remembered
MINUTE = 60.0
READS = (  # all that the page itself asks for: no route of Gradio's that serves a file
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/manifest.json",
    "/assets/",
    "/static/",
    "/svelte/",
    "/gradio_api/queue/data",
    "/gradio_api/heartbeat/",
    "/gradio_api/startup-events",
    "/gradio_api/upload_progress",
    "/gradio_api/info",
)
WRITES = (
    "/gradio_api/queue/join",
    "/gradio_api/upload",
    "/gradio_api/reset",
    "/gradio_api/cancel",
)
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' "
        b"'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
        b"worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
        b"frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def token_for(host: str, environment: Mapping[str, str]) -> str | None:
    """Return the secret that a page for others needs; InputError where it is missing or unfit."""
    token = environment.get(TOKEN)
    if token is None and is_loopback(host):
        return None
    if token is None or not _TOKEN.fullmatch(token):
        raise InputError(
            f"for chat.host={host} the environment variable {TOKEN} has to hold a secret of at "
            f"least {SHORTEST_TOKEN} of A-Z, a-z, 0-9, _ and -: set it, and open the page with "
            "?token=it."
        )
    return token


class Guard:
    """Pass on to `app` what the page itself asks for, from a page of this very server."""

    def __init__(self, app: App, *, host: str, token: str | None, per_minute: int) -> None:
        self.app, self.token, self.per_minute = app, token, per_minute
        self.local = is_loopback(host) and token is None  # with a token a proxy may stand before it
        self._asked: OrderedDict[str, deque[float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if self._is_token(query.get("token", [""])[0]) and scope["path"] == "/":
            cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            more = [(b"location", b"/"), (b"set-cookie", cookie.encode("latin-1"))]
            await _reply(send, 303, "The token is right.", more)
        elif (refusal := self._refusal(scope, headers)) is not None:
            await _reply(send, *refusal)
        else:
            await self.app(scope, _bounded(receive), _with_headers(send))

    def _is_token(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str] | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.local and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return 403, "This page is for this machine alone."
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "Another page may not ask this one."
        cookies = dict(c.strip().partition("=")[::2] for c in headers.get("cookie", "").split(";"))
        if self.token is not None and not self._is_token(cookies.get(COOKIE, "")):
            return 401, "Open this page with ?token=, followed by its token."
        path, method = scope["path"], scope["method"]
        allowed = WRITES if method == "POST" else READS if method in ("GET", "HEAD") else ()
        known = path == "/" and method != "POST"
        known |= any(path == a or (a[-1] == "/" and path.startswith(a)) for a in allowed)
        if not known or ".." in path or "\\" in path:
            return 404, "There is nothing here."
        if method == "POST":
            if not headers.get("content-length", "0").isdigit():
                return 400, "The length of the request is no number."
            if int(headers.get("content-length", "0")) > MOST_BYTES:
                return 413, f"A request has at most {MOST_BYTES // 2**20} MB."
            if not self._may_ask_again((scope.get("client") or ("",))[0]):
                return 429, "Too many requests in a minute: wait a little."
        return None

    def _may_ask_again(self, client: str) -> bool:
        now, times = time.monotonic(), self._asked.setdefault(client, deque())
        self._asked.move_to_end(client)
        if len(self._asked) > MOST_CLIENTS:
            self._asked.popitem(last=False)
        while times and times[0] < now - MINUTE:
            times.popleft()
        if len(times) >= self.per_minute:
            return False
        times.append(now)
        return True


def _bounded(receive: Receive) -> Receive:
    """End a body that is longer than it may be, whatever its header said."""
    read = 0

    async def receive_bounded() -> MutableMapping[str, Any]:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        return message if read <= MOST_BYTES else {"type": "http.disconnect"}

    return receive_bounded


def _with_headers(send: Send) -> Send:
    async def send_with(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *HEADERS]
        await send(message)

    return send_with


async def _reply(
    send: Send, code: int, said: str, more: list[tuple[bytes, bytes]] | None = None
) -> None:
    body = json.dumps({"detail": said}).encode()
    headers = [(b"content-type", b"application/json"), *HEADERS, *(more or [])]
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": body})
