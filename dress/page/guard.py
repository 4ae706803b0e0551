"""What stands before the page: who may ask, what for, how much and how often."""

from __future__ import annotations

import hmac
import time
from collections import Counter
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dress.feedback.endpoint import is_loopback

COOKIE = "dress_chat"
MOST_BYTES = 24 * 2**20  # of a request
MINUTE = 60.0
READS = (  # all that the page itself asks for: no route of Gradio's that serves a file
    "/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/assets/",
    "/static/",
    "/gradio_api/queue/data",
    "/gradio_api/heartbeat/",
)
WRITES = ("/gradio_api/queue/join", "/gradio_api/upload")
HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' "
    "'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Pass on to `app` what the page itself asks for, from a page of this very server."""

    def __init__(self, app: ASGIApp, *, host: str, token: str | None, per_minute: int) -> None:
        self.app, self.token, self.per_minute = app, token, per_minute
        self.local = is_loopback(host) and token is None  # with a token a proxy may stand before it
        self._minute = 0
        self._asked = Counter[str]()  # in this minute, by client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            app = self._reply(Request(scope)) or self.app
            await app(scope, _bounded(receive), _with_headers(send))

    def _reply(self, request: Request) -> Response | None:
        """Return the reply to a request that is not passed on."""
        if request["path"] == "/" and self._is_token(request.query_params.get("token", "")):
            reply = RedirectResponse("/", 303)
            reply.set_cookie(COOKIE, self.token or "", httponly=True, samesite="strict")
            return reply
        if (refusal := self._refusal(request)) is None:
            return None
        code, said = refusal
        return JSONResponse({"detail": said}, code)

    def _is_token(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def _refusal(self, request: Request) -> tuple[int, str] | None:
        headers, method, path = request.headers, request.method, request["path"]
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.local and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return 403, "This page is for this machine alone."
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "Another page may not ask this one."
        if self.token is not None and not self._is_token(request.cookies.get(COOKIE, "")):
            return 401, "Open this page with ?token=, followed by its token."
        allowed = WRITES if method == "POST" else READS if method in ("GET", "HEAD") else ()
        known = any(path == a or (a[1:].endswith("/") and path.startswith(a)) for a in allowed)
        if not known or ".." in path or "\\" in path:
            return 404, "There is nothing here."
        if method == "POST":
            if not (length := headers.get("content-length", "0")).isdecimal():
                return 400, "The length of the request is no number."
            if int(length) > MOST_BYTES:
                return 413, f"A request has at most {MOST_BYTES // 2**20} MB."
            if not self._may_ask_again(request.client.host if request.client else ""):
                return 429, "Too many requests in a minute: wait a little."
        return None

    def _may_ask_again(self, client: str) -> bool:
        if (minute := int(time.monotonic() // MINUTE)) != self._minute:
            self._minute = minute
            self._asked.clear()
        self._asked[client] += 1
        return self._asked[client] <= self.per_minute


def _bounded(receive: Receive) -> Receive:
    """End a body that is longer than it may be, whatever its header said."""
    read = 0

    async def receive_bounded() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        return message if read <= MOST_BYTES else {"type": "http.disconnect"}

    return receive_bounded


def _with_headers(send: Send) -> Send:
    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return send_with
