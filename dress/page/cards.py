"""Fragments of HTML: pictures and texts, each of which is escaped. None names a file."""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Iterable, Sequence

from dress.chat.images import thumbnail

SIDE = 640  # pixels of a picture that is shown
LETTERS = "ABCDEFGH"
_TEMPLATE = {ord(c): f"&#{ord(c)};" for c in "{}$`"}  # which Gradio's templates would read


def text(said: str) -> str:
    return html.escape(said).translate(_TEMPLATE)


def heading(name: str, introduction: str) -> str:
    return f"<h1>{text(name)}</h1><p>{text(introduction)}</p>"


def picture(data: bytes | None) -> str:
    if data is None:
        return '<div class="picture empty">Upload a picture, paste one, or draw a scene.</div>'
    code = b64encode(thumbnail(data, SIDE)).decode()
    return f'<img class="picture" alt="the picture" src="data:image/jpeg;base64,{code}">'


def history(turns: Iterable[tuple[str, str | None]]) -> str:
    """Show what was said, in order: (user, model) pairs, the last of them perhaps unanswered."""
    cards = []
    for user, model in turns:
        cards.append(f'<div class="user"><b>You</b><p>{text(user)}</p></div>')
        if model is not None:
            cards.append(f'<div class="model"><b>Model</b><p>{text(model)}</p></div>')
    return f'<div class="history" role="log">{"".join(cards)}</div>'


def answers(columns: Sequence[tuple[str, str]], *, done: bool) -> str:
    """Show answers side by side, each (title, text) under a letter where there are several."""
    several = len(columns) > 1
    cards = []
    for letter, (title, said) in zip(LETTERS, columns, strict=False):
        name = f"{letter} · {title}" if several and title else letter if several else title
        body = text(said) or ("<i>nothing</i>" if done else "…")
        cards.append(f'<div class="answer"><b>{text(name)}</b><p>{body}</p></div>')
    busy = "false" if done else "true"
    return f'<div class="answers" aria-live="polite" aria-busy="{busy}">{"".join(cards)}</div>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f"<dt>{text(name)}</dt><dd>{text(said)}</dd>" for name, said in rows)
    return f"<dl>{cells}</dl>"


def verbatim(said: str) -> str:
    return f'<pre class="given">{text(said)}</pre>'


def status(said: str) -> str:
    return f'<div role="status" class="status">{text(said)}</div>'
