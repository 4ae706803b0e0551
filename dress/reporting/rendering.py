"""From values to HTML and Markdown: Jinja environments, texts, figures and pictures."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from dress.chat.images import thumbnail
from dress.errors import Reject

MAX_TEXT = 1200  # characters of a text
TEMPLATES = Path(__file__).parent / "templates"
MAX_SIDE = 224  # pixels


def environment(*, autoescape: bool) -> Environment:
    """Escape every value: by jinja2 for HTML, by `escaped` for Markdown."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=None if autoescape else escaped,
    )
    found.filters |= {"duration": duration, "quantity": quantity, "breakable": breakable}
    return found


def escaped(value: Any) -> str:
    """Write a value on one line so that Markdown and HTML in it stay text."""
    if isinstance(value, Markup):
        return value
    text = re.sub(r"[&<>]", lambda m: {"&": "&amp;", "<": "&lt;", ">": "&gt;"}[m[0]], str(value))
    return re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", " ".join(text.split()))


def breakable(name: str) -> Markup:
    """Let a long name break after a slash."""
    return Markup(str(escape(name)).replace("/", "/<wbr>"))


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def quantity(number: float | None) -> str:
    """Write a count with two or three digits and a unit."""
    if number is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def clipped(text: object) -> str:
    text = "" if text is None else str(text)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def picture(folder: Path, name: str) -> str | None:
    """Return an image file of an artifact, made small, as a data URI; None if it cannot be read."""
    path = (folder / name).resolve()
    # the name comes from a file: it must not lead out of the artifact
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    return picture_of(path.read_bytes())


def picture_of(data: bytes) -> str | None:
    """Return an encoded image, made small, as a data URI; None if it cannot be decoded."""
    try:
        small = thumbnail(data, MAX_SIDE)
    except Reject:
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(small).decode('ascii')}"
