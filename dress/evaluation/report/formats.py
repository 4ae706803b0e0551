"""From values to text: the Jinja environments of both files, and how figures are written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

TEMPLATES = Path(__file__).parent / "templates"


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
