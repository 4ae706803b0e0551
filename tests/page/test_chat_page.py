"""What the page shows of what its handlers are asked, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dress.assistant import Assistant
from dress.feedback.feedback_folder import FeedbackFolder
from dress.page.chat_service import ChatService, TabState
from dress.page.streamer import Streamer
from tests.data.coco_files import photograph
from tests.integration.small import answered_samples, make_assistant

pytest.importorskip("gradio", reason="the extra `chat` is not installed")


@pytest.fixture(scope="module")
def assistant() -> Assistant:
    return make_assistant(answered_samples())


@pytest.fixture
def page(assistant: Assistant, tmp_path: Path) -> Any:
    from dress.page.chat_page import ChatPage

    names = ("the-first", "the-second", "the-third")
    streamers = [Streamer(name=n, assistant=assistant, max_new_tokens=2) for n in names]
    return ChatPage(ChatService(streamers=streamers, folder=FeedbackFolder(tmp_path)), commands=[])


def called(page: Any, method: Any, tab: TabState, values: dict[Any, Any]) -> Any:
    """Call what a control is joined to; what is not given has the value that it has at first."""
    joined = next(f for f in page.blocks.fns.values() if f.name == method.__name__)
    first = {block: getattr(block, "value", None) for block in joined.inputs}
    return joined.fn(first | {page.tab: tab.to_json()} | values)


def sent(page: Any, tab: TabState, *, blind: bool = False) -> list[dict[Any, Any]]:
    """Send a message as the page does; return all that is shown, one step after another."""
    return [*called(page, page._send, tab, {page.text: "What?", page.blind: blind})]


def last(page: Any, steps: list[dict[Any, Any]]) -> TabState:
    return TabState.read([step for step in steps if page.tab in step][-1][page.tab])


def test_blind_nothing_that_is_shown_names_a_model(page: Any) -> None:
    for blind in (True, False):
        steps = sent(page, page.service.upload(photograph(1)), blind=blind)
        shown = "".join(str(step.get(x, "")) for step in steps for x in (page.columns, page.prompt))
        assert ("the-first" in shown, "the-second" in shown) == (not blind, not blind)
    assert str(steps[0][page.prompt]).count("USER:") == 3


def test_the_better_answer_shown_is_the_last_that_was_chosen(page: Any) -> None:
    tab = last(page, sent(page, page.service.upload(photograph(1))))
    first, second, third = (a.answer for a in page.service.answers(tab))
    for name in (first, third, second):
        assert [*called(page, page._prefer, tab, {page.better: name})]
        (shown,) = called(page, page._load, tab, {})
        assert shown[page.better]["value"] == name
    assert shown[page.better]["choices"] == [("A", first), ("B", second), ("C", third)]


def test_after_a_fault_the_next_message_follows_what_was_followed(
    page: Any, assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Iterator[None]:
        raise MemoryError

    tab = last(page, sent(page, page.service.upload(photograph(1))))
    (followed, *_) = page.service.answers(tab)
    with monkeypatch.context() as patched:
        patched.setattr(assistant.model, "generate", fail)
        steps = sent(page, tab)
    assert "The model failed (MemoryError)" in steps[-1][page.status]
    failed = last(page, steps)
    assert failed.turn != tab.turn and not page.service.answers(failed)
    again = last(page, sent(page, failed))
    turn = page.service.conversation(again).turns[again.turn]
    assert turn.parent == followed.answer and len(page.service.answers(again)) == 3
