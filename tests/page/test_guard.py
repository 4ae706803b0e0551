"""Who reaches the page, and what nobody reaches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from dress.errors import InputError
from dress.feedback.endpoint import is_loopback
from dress.page.access import TOKEN, token_for

pytest.importorskip("starlette", reason="comes with the extra `chat`")
LONG = "a-long-enough-token"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read the whole body and reply with its length, as Gradio would with anything."""
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


def asked(
    guard: Any,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    query: str = "",
    body: list[bytes] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body; 0 where there is no reply."""
    sent: list[dict[str, Any]] = []
    parts = [*(body or [b""])]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"host": "127.0.0.1:7860"} | dict(headers or {})
    scope = {
        "type": "http",
        "path": path,
        "method": method,
        "query_string": query.encode(),
        "client": ("10.0.0.1", 5),
        "headers": [(k.encode(), v.encode()) for k, v in given.items()],
    }
    asyncio.run(guard(scope, receive, send))
    if not sent:
        return 0, {}, b""
    replied = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], replied, sent[1]["body"]


def guarded(*, host: str = "127.0.0.1", token: str | None = None, per_minute: int = 9) -> Any:
    from dress.page.guard import Guard

    return Guard(app, host=host, token=token, per_minute=per_minute)


def test_the_page_itself_is_served_with_a_policy_that_loads_nothing_from_elsewhere() -> None:
    code, headers, _ = asked(guarded(), "/")
    assert code == 200
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy
    assert asked(guarded(), "/assets/index.js")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/proxy=http://example.com/",
        "/assets/../../../etc/passwd",
        "/static/..\\..\\etc\\passwd",
        "/gradio_api/stream/a/b/c/playlist.m3u8",
        "/custom_component/a/b/c/d",
        "/gradio_api/openapi.json",
        "/gradio_api/runs",
        "/gradio_api/deep_link",
        "/monitoring",
        "/gradio_api/vibe-code",
        "/login",
        "/docs",
    ],
)
def test_no_route_that_could_serve_a_file_is_reachable(path: str) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "OPTIONS"):
        code, _, body = asked(guarded(), path, method=method)
        assert code == 404 and json.loads(body) == {"detail": "There is nothing here."}


def test_another_page_and_another_name_are_refused() -> None:
    post = {"method": "POST"}
    join = "/gradio_api/queue/join"
    assert asked(guarded(), join, **post, headers={"origin": "http://127.0.0.1:7860"})[0] == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://localhost:7860"):
        assert asked(guarded(), join, **post, headers={"origin": origin})[0] == 403
    for host in ("evil.example", "evil.example:7860", "", "127.0.0.1.evil.example"):
        assert asked(guarded(), "/", headers={"host": host})[0] == 403
    for host in ("localhost:7860", "[::1]:7860", "127.0.0.1"):
        assert asked(guarded(), "/", headers={"host": host})[0] == 200


def test_a_page_for_others_needs_its_token() -> None:
    guard = guarded(host="0.0.0.0", token=LONG)
    assert asked(guard, "/")[0] == 401
    assert asked(guard, "/", query="token=wrong")[0] == 401
    assert asked(guard, "/gradio_api/queue/join", method="POST")[0] == 401
    assert asked(guard, "/", headers={"cookie": "dress_chat=wrong"})[0] == 401
    code, headers, _ = asked(guard, "/", query=f"token={LONG}")
    assert code == 303 and headers["location"] == "/"
    assert "HttpOnly" in headers["set-cookie"] and "SameSite=strict" in headers["set-cookie"]
    cookie = headers["set-cookie"].partition(";")[0]
    assert asked(guard, "/", headers={"cookie": f"a=b; {cookie}"})[0] == 200


def test_with_a_token_a_proxy_of_this_machine_may_keep_its_own_name() -> None:
    guard, join = guarded(token=LONG), "/gradio_api/queue/join"
    named = {"host": "chat.example", "origin": "https://chat.example"}
    assert asked(guard, join, method="POST", headers=named)[0] == 401
    named |= {"cookie": f"dress_chat={LONG}"}
    assert asked(guard, join, method="POST", headers=named)[0] == 200
    named |= {"origin": "https://evil.example"}
    assert asked(guard, join, method="POST", headers=named)[0] == 403


def test_a_host_that_others_reach_asks_for_a_token_before_it_is_served() -> None:
    assert token_for("127.0.0.1", {}) is None and token_for("localhost", {}) is None
    assert token_for("::1", {}) is None and not is_loopback("example.com")
    for said in (None, "short", "a-long-enough;token", "a-long-enough-t\u0151ken", f"{LONG}\n"):
        with pytest.raises(InputError, match=TOKEN):
            token_for("0.0.0.0", {TOKEN: said} if said else {})
    assert token_for("0.0.0.0", {TOKEN: LONG}) == LONG


def test_requests_are_bounded_in_number_and_size() -> None:
    from dress.page.guard import MOST_BYTES

    guard, upload = guarded(per_minute=3), "/gradio_api/upload"
    codes = [asked(guard, upload, method="POST")[0] for _ in range(5)]
    assert codes == [200, 200, 200, 429, 429]
    assert asked(guard, "/")[0] == 200
    long = {"content-length": str(50 * 2**20)}
    assert asked(guarded(), upload, method="POST", headers=long)[0] == 413
    assert asked(guarded(), upload, method="POST", headers={"content-length": "x"})[0] == 400
    parts = [bytes(2**20)] * (MOST_BYTES // 2**20 + 1)
    assert asked(guarded(), upload, method="POST", body=parts)[0] == 0
    assert asked(guarded(), upload, method="POST", body=parts[:-1])[2] == str(MOST_BYTES).encode()
