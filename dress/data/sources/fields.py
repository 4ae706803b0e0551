"""The fields of one row, and LLaVA's `conversations` in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dress.errors import Reject
from dress.types import Turn

ROLES = ("human", "gpt")
MARKER = "<image>"
_OUTER_MARKERS = re.compile(rf"^(?:\s*{MARKER})*\s*|\s*(?:{MARKER}\s*)*$")


@dataclass(frozen=True)
class Fields:
    """A row, where it stands and the key of its sample; what is not as it should be is a Reject."""

    row: Mapping[str, Any]
    where: str
    key: str

    def text(self, name: str) -> str:
        return self.as_text(self.row.get(name), name)

    def as_text(self, value: Any, field: str) -> str:
        """Return a text without the blanks around it; it must hold something."""
        if not isinstance(value, str) or not value.strip():
            raise self.reject(f"{field} is {value!r:.40}, not a text")
        return value.strip()

    def as_object(self, value: Any, field: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self.reject(f"{field} is {value!r:.40}, not an object")
        return value

    def as_list(self, value: Any, field: str) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise self.reject(f"{field} is {value!r:.40}, not a list of at least one")
        return value

    def reject(self, fault: str, reason: str = "invalid row") -> Reject:
        return Reject(reason, key=self.key, where=self.where, detail=fault)


def image_names(fields: Fields, name: str = "image") -> tuple[str, ...]:
    """Return the images that a row names: one, a list of them, or none at all."""
    value = fields.row.get(name)
    if value is None or value == "":
        return ()
    names = value if isinstance(value, list) else [value]
    return tuple(fields.as_text(item, name) for item in names)


def conversation(fields: Fields, *, num_images: int) -> tuple[Turn, ...]:
    """Return the turns of a row, all answered; images open the first message."""
    messages = fields.as_list(fields.row.get("conversations"), "conversations")
    if len(messages) % 2:
        raise fields.reject(f"conversations has {len(messages)} messages, the last unanswered")
    texts = []
    for number, message in enumerate(messages):
        field, role = f"conversations[{number}]", ROLES[number % 2]
        record = fields.as_object(message, field)
        if record.get("from") != role:
            raise fields.reject(f"{field}.from is {record.get('from')!r:.40}, not {role!r}")
        texts.append(fields.as_text(record.get("value"), f"{field}.value"))
    users = [without_markers(texts[0], fields, num_images=num_images), *texts[2::2]]
    _check_later(users[1:], fields)
    return tuple(Turn(user, model) for user, model in zip(users, texts[1::2], strict=True))


def without_markers(text: str, fields: Fields, *, num_images: int) -> str:
    """Take `<image>` out of the opening message, wherever it stands for a single image.

    No marker at all is fine for one image; of several images each needs its own, before or after
    the text: between words their places would be lost.
    """
    count = text.count(MARKER)
    if count != num_images and not (count == 0 and num_images == 1):
        raise fields.reject(f"{count} {MARKER} for {num_images} images", "image markers")
    bare = _OUTER_MARKERS.sub("", text)
    if MARKER in bare and num_images > 1:
        raise fields.reject(f"{MARKER} between words, of several images", "image markers")
    return fields.as_text(re.sub(rf"\s*{MARKER}\s*", " ", bare), "the first message")


def _check_later(users: Sequence[str], fields: Fields) -> None:
    if any(MARKER in user for user in users):
        raise fields.reject(f"{MARKER} in a later message", "image markers")
