"""What the tests in a browser do on the chat page, as a person would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dress.page.chat_service import ChatService
from tests.data.coco_files import photograph


@contextmanager
def opened(chromium: Any, address: str) -> Iterator[Any]:
    """Yield a page of its own, with what it asked of whom and what its console said."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.asked, page.faults = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#message textarea")
    yield page
    assert page.faults == []
    assert all(url.startswith((address, "data:", "blob:")) for url in page.asked)
    context.close()


def picture(tab: Any, tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(photograph(1))
    tab.locator("input[type=file]").set_input_files(path)
    tab.wait_for_selector("img.picture")


def send(tab: Any, text: str) -> None:
    tab.locator("#message textarea").fill(text)
    tab.locator("#message textarea").press("Enter")


def answered(tab: Any, *, times: int) -> None:
    """Wait until so many messages of the user are shown and answered."""
    tab.wait_for_function(
        "n => document.querySelectorAll('.history .user').length === n"
        " && document.querySelector('.answers[aria-busy=\"false\"]')",
        arg=times,
    )
    tab.wait_for_selector("text=Overall critique")


def rate(tab: Any, aspect: str, rating: int) -> None:
    tab.locator("fieldset", has_text=aspect).get_by_label(str(rating), exact=True).check()


def prefer(tab: Any, letter: str) -> None:
    tab.locator("fieldset", has_text="The better answer is").get_by_label(letter).check()


def saved(tab: Any) -> None:
    tab.wait_for_selector(".status:has-text('saved')")


def events(service: ChatService, kind: str) -> list[dict[str, Any]]:
    lines = (service.folder.root / "sessions.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]
