"""What a judge's reply says, where its server keeps to the schema and where it does not."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from dress.errors import Reject
from dress.feedback.reply import read_reply
from dress.feedback.rubric import strict_object

SCHEMA = strict_object(
    {"why": {"type": "string"}, "rating": {"type": "integer", "enum": [1, 2, 3, 4]}}
)
GOOD = '{"why": "It is {so}.", "rating": 3}'
BETTER = '{"why": "No.", "rating": 4}'


def read(text: str) -> Any:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    about = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
    return read_reply(ChatCompletion.model_validate({**about, "choices": [choice]}), SCHEMA)


def fault(text: str) -> tuple[str, str]:
    with pytest.raises(Reject) as reject:
        read(text)
    return reject.value.reason, reject.value.detail


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"\n  {GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}\n```\nI hope that this helps.",
        f"Here is my judgement: {GOOD}",
        f"The set {{a, b}} and {{'c': 1}} is none.\n{GOOD}",
        f'The response says {{"a": 1}}.\n{GOOD}',
        f"<think>\nHm, {BETTER} or so? {{\n</think>\n\n{GOOD}",
        f"Hm, {BETTER} or so?</think>{GOOD}",  # the server kept the opening mark
        f"<think>One.</think><think>{BETTER}</think>```json\n{GOOD}\n```",
        "\ufeff" + GOOD,
    ],
)
def test_the_json_is_found_where_it_stands(text: str) -> None:
    assert read(text) == {"why": "It is {so}.", "rating": 3}


@pytest.mark.parametrize("rating", ["3", '"3"', "3.0", '"3.0"'])
def test_a_whole_number_is_one_however_it_is_written(rating: str) -> None:
    reply = read(f'{{"why": "", "rating": {rating}}}')
    assert reply == {"why": "", "rating": 3} and type(reply["rating"]) is int


@pytest.mark.parametrize("rating", ["3.5", '"3.5"', "true", '"three"', "null", "5", '"0"', "[3]"])
def test_what_is_no_rating_is_a_failure(rating: str) -> None:
    reason, detail = fault(f'{{"why": "", "rating": {rating}}}')
    assert reason == "reply breaks the schema" and detail.startswith("reply.rating is ")


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ('{"why": "", "rating": 1, "rating": 4}', "the key 'rating' stands twice"),
        ('```{"why": "", "rating": 1, "rating": 1}```', "the key 'rating' stands twice"),
        (f"{GOOD}\n{BETTER}", "2 objects fit it, where one is asked for"),
        (f"{GOOD} Or rather: {GOOD} {BETTER}", "3 objects fit it, where one is asked for"),
    ],
)
def test_a_rating_given_twice_is_a_failure(text: str, detail: str) -> None:
    assert fault(text) == ("reply breaks the schema", detail)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "reply is no JSON"),
        ("I would say 4.", "reply is no JSON"),
        ("rating: 4", "reply is no JSON"),
        (GOOD[:-1], "reply is no JSON"),
        (f'{{"draft": {GOOD}, "final": {{"why": "', "reply is no JSON"),  # cut short
        (f'{{"draft": {GOOD},}}', "reply is no JSON"),  # one comma too many
        (f"<think>I would say {GOOD}", "reply is no JSON"),  # never ended
        (f'{{"reply": {GOOD}}}', "reply breaks the schema"),
        (f"[{GOOD}]", "reply breaks the schema"),
        (json.dumps(GOOD), "reply breaks the schema"),
        (GOOD[:-1] + ', "note": ""}', "reply breaks the schema"),
        ('{"rating": 3}', "reply breaks the schema"),
        ('{"why": 3, "rating": 3}', "reply breaks the schema"),
        ('{"why": "\\ud83d", "rating": 3}', "reply breaks the schema"),
    ],
)
def test_all_else_is_a_failure(text: str, reason: str) -> None:
    assert fault(text)[0] == reason


def test_the_beginning_of_what_is_no_json_is_shown() -> None:
    _, detail = fault("I would say that " + 1000 * "x")
    assert detail.startswith("it begins with 'I would say") and len(detail) < 100


@pytest.mark.parametrize("text", ["{" * 200_000, '{"a":' * 100_000, "[" * 200_000, "{}" * 100_000])
def test_a_hostile_reply_takes_no_time(text: str) -> None:
    started = time.process_time()
    fault(text)
    assert time.process_time() - started < 5
