"""What a peer model is asked, and which of its answers count as responses."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dress.chat.condition import Condition
from dress.errors import InputError, Reject
from dress.feedback.endpoint_sampler import EndpointSampler, chat_messages
from dress.records import Prompt, Turn
from tests.feedback.llm_server import Answer, LLMServer, fingerprint


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.02)


def picture(kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, kind)
    return file.getvalue()


def sampler(server: LLMServer, **changed: Any) -> EndpointSampler:
    settings: dict[str, Any] = {"timeout_s": 5.0, "max_retries": 2, "concurrency": 4, **changed}
    return EndpointSampler(base_url=server.url, model="peer", **settings)


def saying(body: Any) -> Answer:
    return Answer(f"It is {fingerprint(body)} by {body.get('seed')}.")


QUESTION = Prompt((), (Turn("What is it?"),))


def test_messages_of_a_dialogue_with_an_image_and_a_condition() -> None:
    turns = (Turn("What is it?", "A circle."), Turn("Look again."))
    jpeg = picture("JPEG")
    messages = chat_messages(Prompt((jpeg,), turns, "Answers fully."))
    url = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    first = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "What is it?"},
    ]
    assert messages == [
        {"role": "user", "content": first},
        {"role": "assistant", "content": "A circle."},
        {"role": "user", "content": "Look again.\n\nAnswers fully."},
    ]
    assert chat_messages(QUESTION) == [{"role": "user", "content": "What is it?"}]


def test_each_draw_is_a_request_with_a_seed_of_its_own() -> None:
    with LLMServer(usual=saying) as server:
        asking = sampler(server)
        drawn = asking.generate(
            [QUESTION, QUESTION], temperature=0.7, top_p=0.9, max_new_tokens=12, num_samples=3
        )
        assert len({text for texts in drawn for text in texts}) == len(server.bodies) == 6
        assert asking.generate([QUESTION], temperature=0.7, num_samples=3, seed=1) != drawn[:1]
    body = server.bodies[0]
    assert "response_format" not in body and body["model"] == "peer"
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.7, 0.9, 12)
    assert all(0 <= body["seed"] < 2**31 for body in server.bodies)
    assert asking.metrics()["sampler/requests"] == 9


def test_what_is_greedy_is_asked_once_and_kept(tmp_path: Path) -> None:
    with LLMServer(usual=saying, delay=0.05) as server:
        said = sampler(server, cache_dir=tmp_path).generate([QUESTION] * 4, num_samples=2)
        assert len(server.bodies) == 1 and len({t for texts in said for t in texts}) == 1
        assert sampler(server, cache_dir=tmp_path).generate([QUESTION]) == [said[0][:1]]
        assert len(server.bodies) == 1


@pytest.mark.parametrize("seed", [2148 * 1_000_003, 2**31 - 1, 0])
def test_a_greedy_seed_has_31_bits_also_when_it_is_asked_again(seed: int) -> None:
    with LLMServer([Answer(""), Answer("")], usual=saying) as server:
        sampler(server).generate([QUESTION], seed=seed)
    first, second, third = (body["seed"] for body in server.bodies)
    assert 0 <= first < second < third < 2**31


def test_settings_that_a_server_refuses_are_left_out_and_draws_stay_apart(tmp_path: Path) -> None:
    omitted = ["seed", "temperature", "top_p", "max_tokens"]
    with LLMServer(usual=saying) as server:
        asking = sampler(server, omit=omitted, cache_dir=tmp_path)
        asking.generate([QUESTION], temperature=1.0, num_samples=2)
        assert len(server.bodies) == 2 and not set(omitted) & set(server.bodies[0])
        again = sampler(server, omit=omitted, cache_dir=tmp_path)
        again.generate([QUESTION], temperature=1.0, num_samples=3)
    assert len(server.bodies) == 3 and again.metrics()["sampler/cached"] == 2


REFUSED = {"role": "assistant", "content": None, "refusal": "I will not."}
REFUSAL = json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": REFUSED}]})


@pytest.mark.parametrize(
    ("answer", "response"),
    [
        (Answer("It is r", finish="length"), "It is r"),
        (Answer("<think>A circle?</think>\n A square. "), "A square."),
        (Answer("<think>A circle?</think>I will", finish="length"), "I will"),
        (Answer('{"rating": 4}'), '{"rating": 4}'),
        (Answer(body=REFUSAL), "I will not."),
        (Answer(body=REFUSAL.replace('"stop"', '"content_filter"')), "I will not."),
    ],
)
def test_what_counts_as_a_response(answer: Answer, response: str) -> None:
    with LLMServer([answer]) as server:
        assert sampler(server).generate([QUESTION]) == [[response]]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer("", finish="content_filter"), "the model refused"),
        (Answer(None, finish="length"), "reply cut off"),
        (Answer("<think>A circle? Or", finish="length"), "reply cut off"),
        (Answer("<think>A circle?</think>\n"), "no chat completion"),
        (Answer(""), "no chat completion"),
        (Answer(body="{}"), "no chat completion"),
        (Answer(status=400, body='{"error": {"message": "context is 8 tokens"}}'), "HTTP 400"),
    ],
)
def test_a_prompt_without_a_response_is_a_reject(
    answer: Answer, reason: str, tmp_path: Path
) -> None:
    other = Prompt((), (Turn("And this?"),))

    def usual(body: Any) -> Answer:
        return answer if "What" in body["messages"][0]["content"] else saying(body)

    with LLMServer(usual=usual) as server:
        rejects: dict[int, Reject] = {}
        asking = sampler(server, cache_dir=tmp_path)
        said = asking.generate([QUESTION, other], rejects=rejects)
        assert len(list(tmp_path.rglob("*.json"))) == 1  # of the other one
        assert said[0] == [] and said[1][0].startswith("It is") and set(rejects) == {0}
        assert rejects[0].reason == reason
        with pytest.raises(Reject, match=rf"What is it\?: {reason}"):
            sampler(server).generate([QUESTION])


def test_an_image_that_cannot_be_shown_is_a_reject_and_not_sent() -> None:
    with LLMServer(usual=saying) as server:
        rejects: dict[int, Reject] = {}
        broken = Prompt((b"no image",), (Turn("What?"),))
        assert sampler(server).generate([broken], rejects=rejects) == [[]]
    assert rejects[0].reason.startswith("not a JPEG") and server.bodies == []


def test_a_mistake_in_the_settings_ends_in_a_sentence() -> None:
    with LLMServer(usual=lambda _: Answer(status=404, body="{}")) as server:
        with pytest.raises(InputError, match="has no chat completions of 'peer'"):
            sampler(server).generate([QUESTION])
        with pytest.raises(InputError, match=r"generation\.guidance"):
            sampler(server).generate([QUESTION], guidance=1.0)
    with pytest.raises(InputError, match="timeout_s is 0"):
        EndpointSampler(base_url="http://localhost/v1", model="m", timeout_s=0)
    with pytest.raises(InputError, match=r"omit\[0\] is 'stop'"):
        EndpointSampler(base_url="http://localhost/v1", model="m", omit=["stop"])  # type: ignore[list-item]
    assert Condition(learned=False).target("auto") == ""
