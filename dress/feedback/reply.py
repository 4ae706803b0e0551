"""Read the reply in a chat completion: JSON that fits a schema, or plain text, or a Reject.

A server that keeps to the schema sends nothing but the JSON. Others put it in a fence, behind
thoughts or among words: then exactly one object of the text must fit.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from openai.types.chat import ChatCompletion, ChatCompletionMessage

from dress.errors import Reject
from dress.files import is_unicode, write_text
from dress.fingerprint import canonical_json
from dress.records import whole_number

REFUSED = "the model refused"
NO_JSON, BROKEN = "reply is no JSON", "reply breaks the schema"
RESPONSE: Mapping[str, Any] = {  # how a response is kept
    "type": "object",
    "properties": {"response": {"type": "string"}},
}
_TYPES = {"object": dict, "string": str, "integer": int}
_BRACE = re.compile(r"[{}]")
_THOUGHTS = re.compile(r"\A.*</think>|<think>.*", re.DOTALL)  # to the last mark; or never ended


def read_reply(completion: object, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    content = _content(completion).strip()
    try:
        found = [_DECODER.decode(content)]
    except (ValueError, RecursionError):
        found = list(_objects(_THOUGHTS.sub("", content)))
    if not found:
        raise Reject(NO_JSON, detail=f"it begins with {content[:60]!r}")
    return _only(found, schema)


def fitted(value: Any, schema: Mapping[str, Any], place: str = "reply") -> Any:
    """Return a value that fits the schema, its integers as such; a Reject names what breaks it.

    Of JSON Schema it knows objects that have all of their properties and no other, strings,
    integers and `enum`: what strict structured outputs are made of. An integer may be written as
    text or with a zero behind the point.
    """
    if schema["type"] == "integer" and (number := whole_number(value)) is not None:
        value = number
    if type(value) is not _TYPES[schema["type"]]:  # a bool is no integer
        raise Reject(BROKEN, detail=f"{place} is {value!r:.40}, no {schema['type']}")
    if value not in schema.get("enum", (value,)):
        raise Reject(BROKEN, detail=f"{place} is {value!r:.40}, not one of {schema['enum']}")
    if isinstance(value, str) and not is_unicode(value):
        raise Reject(BROKEN, detail=f"{place} holds half a character")
    if not isinstance(value, dict):
        return value
    properties = schema["properties"]
    if set(value) != set(properties):
        keys = f"{sorted(value)}, not {sorted(properties)}"
        raise Reject(BROKEN, detail=f"{place} has the keys {keys}")
    return {name: fitted(value[name], properties[name], f"{place}.{name}") for name in properties}


def _only(objects: list[Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the one object that fits: of several it is not known which one is meant."""
    fitting: list[Mapping[str, Any]] = []
    for value in objects:
        try:
            fitting.append(fitted(value, schema))
        except Reject as reject:
            fault = reject
    if len(fitting) > 1:
        raise Reject(BROKEN, detail=f"{len(fitting)} objects fit it, where one is asked for")
    if not fitting:
        raise fault
    return fitting[0]


def _objects(text: str) -> Iterator[Any]:
    """Yield every JSON object of a text, none that is part of another one, sound or not."""
    place = text.find("{")
    while place >= 0:
        try:
            value, place = _DECODER.raw_decode(text, place)
            yield value
        except (ValueError, RecursionError):
            place = _end(text, place)
        place = text.find("{", place)


def _end(text: str, place: int) -> int:
    """Return where the brace at `place` has been closed, or the end of the text."""
    depth = 0
    for brace in _BRACE.finditer(text, place):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return brace.end()
    return len(text)


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise Reject(BROKEN, detail=f"the key {twice!r:.40} stands twice")
    return record


_DECODER = json.JSONDecoder(object_pairs_hook=_refuse_twins)


def read_response(completion: object) -> Mapping[str, Any]:
    """Read what a model says to its user, also where it was cut off, without its thoughts.

    A refusal in words is a response. A filter that lets none through, or no text, is a Reject.
    """
    finish, message = _message(completion)
    if finish == "content_filter" and not message.refusal:
        raise Reject(REFUSED, detail="by a filter of its server")
    said = message.refusal or message.content
    response = _THOUGHTS.sub("", said).strip() if isinstance(said, str) else ""
    if response:
        return fitted({"response": response}, RESPONSE)
    if finish == "length":
        raise Reject("reply cut off", detail="max_new_tokens are spent before it says anything")
    raise Reject("no chat completion", detail="the answer has no text")


def _content(completion: object) -> str:
    finish, message = _message(completion)
    if message.refusal or finish == "content_filter":
        raise Reject(REFUSED)
    if finish == "length":
        raise Reject("reply cut off", detail="raise max_tokens")
    if not isinstance(message.content, str):
        raise Reject("no chat completion", detail="the answer has no text")
    return message.content


def _message(completion: object) -> tuple[object, ChatCompletionMessage]:
    """Return why the answer ended and its message."""
    # the SDK checks nothing: whatever the server sent may stand here
    if not isinstance(completion, ChatCompletion):
        raise Reject("no chat completion", detail="the answer is no JSON")
    try:
        choice = completion.choices[0]
        _ = choice.message.refusal, choice.message.content
        return choice.finish_reason, choice.message
    except (AttributeError, IndexError, TypeError):
        raise Reject("no chat completion", detail="the answer has no choices") from None


def request_key(request: Mapping[str, Any]) -> str:
    """Hash a request, wherever it is sent; images count by the hash of their data URL."""
    return hashlib.sha256(canonical_json(_hashed_images(request)).encode()).hexdigest()


class ReplyCache:
    """Keep replies under `directory/ab/<key>.json`; without a directory keep nothing.

    Several processes and machines may share a directory: a file appears whole or not at all.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory

    def read(self, key: str, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the reply, or None where there is none or it was damaged."""
        if self.directory is None:
            return None
        try:
            reply = json.loads(self._path(self.directory, key).read_bytes())
            return fitted(reply, schema)
        except (FileNotFoundError, ValueError, Reject):
            return None

    def write(self, key: str, reply: Mapping[str, Any]) -> None:
        if self.directory is None:
            return
        path = self._path(self.directory, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(reply, ensure_ascii=False) + "\n")

    def _path(self, directory: Path, key: str) -> Path:
        return directory / key[:2] / f"{key}.json"


def _hashed_images(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("data:"):
        return f"sha256:{hashlib.sha256(value.encode()).hexdigest()}"
    if isinstance(value, Mapping):
        return {name: _hashed_images(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_hashed_images(item) for item in value]
    return value
