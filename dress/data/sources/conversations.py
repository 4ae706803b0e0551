"""LLaVA's `conversations`: messages of `human` and `gpt` in turn, `<image>` where an image goes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dress.data.sources.fields import Fields
from dress.types import Turn

ROLES = ("human", "gpt")
MARKER = "<image>"
_OUTER_MARKERS = re.compile(rf"^(?:\s*{MARKER})*\s*|\s*(?:{MARKER}\s*)*$")


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
