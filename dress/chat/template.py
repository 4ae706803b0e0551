"""Turns to ONE string plus character spans that tile it.

Every text that is not the template's own is escaped, so that no question, answer or feedback can
forge a role, an image or an end token.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from dress.errors import InputError
from dress.records import Turn

Role = Literal["system", "image", "user", "condition", "model"]


@dataclass(frozen=True)
class Span:
    """Characters start to end (exclusive) of a rendered string."""

    start: int
    end: int
    role: Role
    supervised: bool = False


@dataclass(frozen=True)
class Rendered:
    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """Literal pieces of a chat format.

    `begin` stands before everything and outside of the string: "auto" is what the tokenizer itself
    puts before a text. `question` stands before what the user says, behind the images, and
    `no_image` in the place of the images of a turn that has none.
    `response_prefix` is the space between the model's marker and its answer: it belongs to the
    supervised span, because tokenizers merge it with the first word.
    """

    begin: str = "auto"
    system: str = ""
    user: str = "USER: "
    image: str = "<image>\n"
    no_image: str = ""
    question: str = ""
    condition: str = " FEEDBACK: "
    model: str = " ASSISTANT:"
    response_prefix: str = " "
    end: str = "</s>"
    image_token: str = "<image>"
    reserved: tuple[str, ...] = ()  # further strings no text may contain: the special tokens

    def __post_init__(self) -> None:
        if self.image.count(self.image_token) != 1:
            raise InputError(f"template.image must contain {self.image_token!r} exactly once.")
        for marker in self.markers:
            if len(marker) < 2 or "\\" in marker:
                raise InputError(
                    f"the template's marker or special token {marker!r} cannot be escaped in other "
                    "texts: it needs two or more characters and no backslash."
                )

    @cached_property
    def markers(self) -> tuple[str, ...]:
        """What no foreign text may contain, longest first."""
        pieces = (self.user, self.condition, self.model, self.end, self.image_token)
        markers = ({piece.strip() for piece in pieces} | set(self.reserved)) - {""}
        return tuple(sorted(markers, key=lambda marker: (-len(marker), marker)))

    def escape(self, text: str) -> str:
        r"""Put one more backslash behind the first character of every marker: USER: -> U\SER:.

        Markers are sought as if the text had no backslashes, which makes this injective even
        where markers overlap: a backslash put in never hides or makes one.
        """
        return self._marker_start.sub(r"\g<0>\\", text)

    def unescape(self, text: str) -> str:
        return self._escaped_start.sub(r"\1", text)

    @cached_property
    def _marker_start(self) -> re.Pattern[str]:
        return re.compile("|".join(f"{re.escape(m[0])}(?={_spread(m[1:])})" for m in self.markers))

    @cached_property
    def _escaped_start(self) -> re.Pattern[str]:
        starts = (rf"{re.escape(m[0])}(?=\\{_spread(m[1:])})" for m in self.markers)
        return re.compile(rf"({'|'.join(starts)})\\")

    def render(
        self,
        turns: Sequence[Turn],
        *,
        num_images: int,
        condition: str = "",
        supervised: Collection[int] = (),
        prompt_only: bool = False,
    ) -> Rendered:
        """Write `turns` as one string; images open the first, `condition` stands in the last.

        Turns in `supervised` carry loss on their response and its end token. With `prompt_only`
        the string stops where the last turn's response would begin.
        """
        assert turns, "a dialogue has at least one turn"
        last = len(turns) - 1
        pieces: list[tuple[str, Role, bool]] = [(self.system, "system", False)]
        for index, turn in enumerate(turns):
            images = num_images if index == 0 else 0
            pieces.append((self.user + ("" if images else self.no_image), "user", False))
            pieces += [(self.image, "image", False)] * images
            pieces.append((self.question + self.escape(turn.user), "user", False))
            if index == last and condition:
                pieces.append((self.condition + self.escape(condition), "condition", False))
            pieces.append((self.model, "model", False))
            if not (prompt_only and index == last):
                assert turn.model is not None, f"turn {index} has no response to render"
                response = self.response_prefix + self.escape(turn.model) + self.end
                pieces.append((response, "model", index in supervised))
        return _join(pieces)


def _spread(marker: str) -> str:
    """A pattern for `marker` with any number of backslashes before each of its characters."""
    return "".join(rf"\\*{re.escape(character)}" for character in marker)


def _join(pieces: Iterable[tuple[str, Role, bool]]) -> Rendered:
    spans, texts, position = [], [], 0
    for text, role, is_supervised in pieces:
        if text:
            spans.append(Span(position, position + len(text), role, is_supervised))
            texts.append(text)
            position += len(text)
    return Rendered("".join(texts), tuple(spans))
