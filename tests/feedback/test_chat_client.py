from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dress.errors import InputError, Reject
from dress.feedback.client import ChatClient
from dress.feedback.endpoint import JsonEndpoint
from dress.feedback.reply import fitted
from dress.feedback.rubric import reply_schema
from tests.feedback.llm_server import Answer, LLMServer, judged

SCHEMA = reply_schema(("helpfulness", "honesty", "harmlessness"))
QUESTION = [{"role": "user", "content": "How is it?"}]
SECRET = "sk-this-must-be-nowhere-0123456789"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.02)


def client(server: LLMServer | str, **changed: Any) -> ChatClient:
    url = server if isinstance(server, str) else server.url
    settings: dict[str, Any] = {"timeout_s": 5.0, "max_retries": 3, **changed}
    return ChatClient(JsonEndpoint(base_url=url, model="judge", **settings))


def ask(asking: ChatClient, *questions: list[dict[str, Any]]) -> list[Any]:
    async def run() -> list[Any]:
        async with asking:
            decoding = asking.endpoint.decoding  # type: ignore[attr-defined]
            waiting = (asking.complete(question, SCHEMA, **decoding) for question in questions)
            return await asyncio.gather(*waiting, return_exceptions=True)

    return asyncio.run(run())


def ratings(reply: Mapping[str, Any]) -> list[int]:
    return [judgement["rating"] for judgement in reply.values()]


def test_what_is_sent_and_counted() -> None:
    with LLMServer([Answer(judged(2))]) as server:
        asking = client(server, price_per_million={"prompt": 2.0, "completion": 10.0})
        [reply] = ask(asking, QUESTION)
    assert ratings(reply) == [2, 2, 2]
    [body] = server.bodies
    assert server.paths == {"/v1/chat/completions"} and server.keys == ["Bearer none"]
    assert (body["model"], body["messages"]) == ("judge", QUESTION)
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0.0, 0, 1024)
    form = body["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"] == SCHEMA
    assert asking.metrics() == {
        "requests": 1,
        "retries": 0,
        "cached": 0,
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "cost": pytest.approx(100 * 2e-6 + 20 * 10e-6),
    }


def test_settings_that_are_none_are_not_sent() -> None:
    with LLMServer() as server:
        ask(client(server, temperature=None, max_tokens=None, seed=None), QUESTION)
    assert not {"temperature", "max_tokens", "seed"} & set(server.bodies[0])


TRANSIENT = {
    "rate limit": Answer(status=429, body="{}"),
    "server error": Answer(status=500, body="oops", content_type="text/html"),
    "overload": Answer(status=503, body="{}"),
    "stall": Answer(judged(1), delay=1.5),
    "hang up": Answer(close=True),
    "cut off": Answer(judged(1)[:-9], finish="length"),
    "truncated": Answer(judged(1)[:-9]),
    "prose": Answer("I would say 4."),
    "seven": Answer(judged(7)),
    "half": Answer(judged(3.5)),  # type: ignore[arg-type]
    "true": Answer(judged(True)),
    "aspect missing": Answer(json.dumps({"honesty": json.loads(judged())["honesty"]})),
    "aspect added": Answer(judged(beauty=json.loads(judged())["honesty"])),
    "key missing": Answer(judged(honesty={"rating": 3})),
    "half a character": Answer(judged(critique="\ud83d")),
    "no text": Answer(None),
    "no choices": Answer(body="{}"),
    "null choices": Answer(body='{"choices": null}'),
    "truncated body": Answer(body='{"choices": [{"mess'),
    "web page": Answer(body="<html>", content_type="text/html"),
}


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_passing_fault_is_asked_again(fault: str) -> None:
    with LLMServer([TRANSIENT[fault], Answer(judged(4))]) as server:
        asking = client(server, timeout_s=0.8)
        [reply] = ask(asking, QUESTION)
    assert ratings(reply) == [4, 4, 4]
    assert len(server.bodies) == 2
    assert asking.metrics()["requests"] == 2 and asking.metrics()["retries"] == 1


def test_an_invalid_reply_is_asked_for_with_another_seed() -> None:
    with LLMServer([Answer("no"), Answer("no")]) as server:
        ask(client(server, seed=7), QUESTION)
    assert [body["seed"] for body in server.bodies] == [7, 8, 9]


@pytest.mark.parametrize(
    ("answer", "reason", "requests"),
    [
        (Answer("no"), "reply is no JSON", 3),
        (Answer(judged(7)), "reply breaks the schema", 3),
        (Answer("{", finish="length"), "reply cut off", 3),
        (Answer("", finish="content_filter"), "the model refused", 1),
        (Answer(status=500, body="{}"), "HTTP 500", 4),
        (Answer(status=429, body="{}"), "HTTP 429", 4),
        (Answer(status=400, body='{"error": {"message": "too long"}}'), "HTTP 400", 1),
        (Answer(close=True), "connection lost", 4),
        (Answer(judged(), delay=0.5), "no answer in time", 4),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_lasting_fault_is_a_reject(
    answer: Answer, reason: str, requests: int, tmp_path: Path
) -> None:
    with LLMServer(usual=lambda _: answer) as server:
        timeout = 0.1 if answer.delay else 10.0
        [reject] = ask(client(server, timeout_s=timeout, cache_dir=tmp_path), QUESTION)
    assert isinstance(reject, Reject), reject
    assert reject.reason == reason
    assert len(server.bodies) == requests
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("content", ["I would say 4.", judged(7), f"{judged(1)} {judged(4)}"])
def test_a_server_that_ignores_the_schema_is_named(content: str) -> None:
    with LLMServer(usual=lambda _: Answer(content)) as server:
        [reject] = ask(client(server), QUESTION)
    assert isinstance(reject, Reject) and len(server.bodies) == 3
    assert f"{server.url} ignores the JSON schema of response_format: " in reject.detail


def test_a_reply_in_a_fence_is_asked_for_once_and_kept(tmp_path: Path) -> None:
    fenced = f"<think>Hm.</think>\n```json\n{judged('4')}\n```"  # type: ignore[arg-type]
    with LLMServer(usual=lambda _: Answer(fenced)) as server:
        for _ in range(2):
            [reply] = ask(client(server, cache_dir=tmp_path), QUESTION)
            assert ratings(reply) == [4, 4, 4]
        assert len(server.bodies) == 1


def test_retry_after_is_kept() -> None:
    limited = Answer(status=429, body="{}", headers={"Retry-After": "1"})
    with LLMServer([limited]) as server:
        [reply] = ask(client(server), QUESTION)
    assert ratings(reply) and 1.0 <= server.times[1] - server.times[0] < 20


@pytest.mark.parametrize("wait", ["150", "7200", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_nobody_waits_for_more_than_two_minutes(wait: str) -> None:
    limited = Answer(status=429, body="{}", headers={"Retry-After": wait})
    started = time.monotonic()
    with LLMServer(usual=lambda _: limited) as server:
        [reject] = ask(client(server), QUESTION)
    assert isinstance(reject, Reject) and reject.reason == "HTTP 429"
    assert len(server.bodies) == 1 and time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("status", "named"), [(401, "MY_KEY"), (403, "MY_KEY"), (404, "base_url or model")]
)
def test_a_mistake_in_the_settings_ends_it(
    status: int, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    said = json.dumps({"error": {"message": f"bad key {SECRET}\n in Authorization"}})
    with LLMServer(usual=lambda _: Answer(status=status, body=said)) as server:
        [error] = ask(client(server, api_key_env="MY_KEY"), QUESTION)
    assert isinstance(error, InputError) and named in str(error)
    assert "bad key *** in" in str(error) and "\n" not in str(error)
    assert server.keys == [f"Bearer {SECRET}"]


def test_a_server_that_is_not_there() -> None:
    with LLMServer() as server:
        gone = server.url
    [error] = ask(client(gone), QUESTION)
    assert isinstance(error, InputError) and gone in str(error)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"base_url": "localhost:8000"}, "base_url"),
        ({"base_url": ""}, "base_url"),
        ({"base_url": f"https://user:{SECRET}@example.org/v1"}, "api_key_env"),
        ({"base_url": f"https://example.org/v1?key={SECRET}"}, "api_key_env"),
        ({"base_url": "https://example.org/v1"}, "OPENAI_API_KEY"),
        ({"base_url": "https://example.org/v1", "api_key_env": "OTHER"}, "OTHER"),
        ({"base_url": "http://localhost/v1", "price_per_million": {"in": 1}}, "price_per_million"),
    ],
)
def test_mistakes_show_before_anything_is_sent(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        JsonEndpoint(model="judge", **changed)
    assert SECRET not in str(caught.value)


def test_the_cache_answers_without_a_request_wherever_the_server_is(tmp_path: Path) -> None:
    with LLMServer() as server:
        first = ask(client(server, cache_dir=tmp_path), QUESTION)
    [file] = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.parent.name == file.stem[:2] and len(file.stem) == 64
    with LLMServer() as server:
        asking = client(server, cache_dir=tmp_path, max_retries=0, concurrency=2)
        assert ask(asking, QUESTION) == first and server.bodies == []
        assert asking.metrics()["cached"] == 1 and asking.metrics()["requests"] == 0
        other = [client(server, cache_dir=tmp_path, seed=1), client(server, temperature=0.5)]
        assert all(len(ask(one, QUESTION)) for one in other) and len(server.bodies) == 2
        file.write_text(file.read_text()[:-9])  # damaged
        assert ask(client(server, cache_dir=tmp_path), QUESTION) == first
        assert len(server.bodies) == 3
        assert ask(client(server, cache_dir=tmp_path), QUESTION) == first
        assert len(server.bodies) == 3


def test_the_key_depends_on_every_image() -> None:
    def with_image(url: str) -> list[dict[str, Any]]:
        parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{url}"}}]
        return [{"role": "user", "content": parts}]

    with LLMServer() as server:
        ask(client(server), with_image("AAAA"), with_image("AAAB"), with_image("AAAA"))
    assert len(server.bodies) == 2


def test_identical_questions_in_flight_are_sent_once() -> None:
    with LLMServer(delay=0.2) as server:
        asking = client(server)
        replies = ask(asking, *[QUESTION] * 20)
    assert len(server.bodies) == 1 and all(reply == replies[0] for reply in replies)
    assert asking.metrics()["cached"] == 19


def test_the_key_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    echo = json.dumps({"error": {"message": f"Authorization: Bearer {SECRET}"}})
    faults = [Answer(status=status, body=echo) for status in (400, 401, 404, 422)]
    said = []
    with LLMServer([*faults, Answer(status=500, body=echo), Answer(close=True)]) as server:
        asking = client(server, cache_dir=tmp_path)
        for _ in faults:
            [error] = ask(asking, QUESTION)
            said += ["".join(traceback.format_exception(error)), repr(error), repr(error.__dict__)]
            assert error.__context__ is None and error.__cause__ is None
        [reply] = ask(asking, QUESTION)
    assert ratings(reply) and len(server.bodies) == 7
    assert set(server.keys) == {f"Bearer {SECRET}"}  # so it was there to be leaked
    said += [repr(asking), repr(vars(asking)), str(asking.metrics()), caplog.text]
    said += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(caplog.records) > 5
    assert not any(SECRET in text for text in said)


def test_the_schema_check() -> None:
    good = json.loads(judged())
    assert fitted(good, SCHEMA) == good
    good["honesty"]["rating"] = 0
    with pytest.raises(Reject, match="breaks the schema") as reject:
        fitted(good, SCHEMA)
    assert reject.value.detail == "reply.honesty.rating is 0, not one of [1, 2, 3, 4]"
