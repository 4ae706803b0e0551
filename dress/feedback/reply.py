"""Read the reply in a chat completion: JSON that fits a schema, or a Reject with the reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from openai.types.chat import ChatCompletion

from dress.data.rejects import Reject
from dress.files import is_unicode

REFUSED = "the model refused"
_TYPES = {"object": dict, "string": str, "integer": int}


def read_reply(completion: object, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    content = _content(completion)
    try:
        reply = json.loads(content)
    except ValueError as error:
        raise Reject("reply is no JSON", detail=str(error)) from None
    if (fault := violation(reply, schema)) is not None:
        raise Reject("reply breaks the schema", detail=fault)
    return reply


def violation(value: Any, schema: Mapping[str, Any], place: str = "reply") -> str | None:
    """Name the first place that breaks the schema; None where there is none.

    Of JSON Schema it knows objects that have all of their properties and no other, strings,
    integers and `enum`: what strict structured outputs are made of.
    """
    if type(value) is not _TYPES[schema["type"]]:  # a bool is no integer
        return f"{place} is no {schema['type']}"
    if value not in schema.get("enum", (value,)):
        return f"{place} is {value!r}, not one of {schema['enum']}"
    if isinstance(value, str) and not is_unicode(value):
        return f"{place} holds half a character"
    if not isinstance(value, dict):
        return None
    properties = schema["properties"]
    if set(value) != set(properties):
        return f"{place} has the keys {sorted(value)}, not {sorted(properties)}"
    faults = (violation(value[name], properties[name], f"{place}.{name}") for name in properties)
    return next((fault for fault in faults if fault is not None), None)


def _content(completion: object) -> str:
    # the SDK checks nothing: whatever the server sent may stand here
    if not isinstance(completion, ChatCompletion):
        raise Reject("no chat completion", detail="the answer is no JSON")
    try:
        choice = completion.choices[0]
        finish, message = choice.finish_reason, choice.message
        refusal, content = message.refusal, message.content
    except (AttributeError, IndexError, TypeError):
        raise Reject("no chat completion", detail="the answer has no choices") from None
    if refusal or finish == "content_filter":
        raise Reject(REFUSED)
    if finish == "length":
        raise Reject("reply cut off", detail="raise max_tokens")
    if not isinstance(content, str):
        raise Reject("no chat completion", detail="the answer has no text")
    return content
