"""What the page shows of what its handlers are asked, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dress.assistant import Assistant
from dress.feedback.feedback_folder import FeedbackFolder
from dress.page.desk import Desk, Place
from dress.page.speaker import Speaker
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
    speakers = [Speaker(name=n, assistant=assistant, max_new_tokens=2) for n in names]
    return ChatPage(Desk(speakers=speakers, folder=FeedbackFolder(tmp_path)), commands=[])


def sent(page: Any, place: Place, *, blind: bool = False) -> list[dict[Any, Any]]:
    """Send a message as the page does; return all that is shown, one step after another."""
    settings = ("best", 4, 4, 4, 0, 1, blind, "")
    return [*page._told(page._send)(place.plain(), "What?", None, *settings)]


def last(page: Any, steps: list[dict[Any, Any]]) -> Place:
    return Place.of([step for step in steps if page.place in step][-1][page.place])


def test_blind_nothing_that_is_shown_names_a_model(page: Any) -> None:
    for blind in (True, False):
        steps = sent(page, page.desk.shown(photograph(1)), blind=blind)
        shown = "".join(str(step.get(x, "")) for step in steps for x in (page.columns, page.given))
        assert ("the-first" in shown, "the-second" in shown) == (not blind, not blind)
    assert str(steps[0][page.given]).count("USER:") == 3


def test_the_better_answer_shown_is_the_last_that_was_chosen(page: Any) -> None:
    place = last(page, sent(page, page.desk.shown(photograph(1))))
    for letter in "ACB":
        page._prefer(place, letter, "")
        assert page._view(place, blind=False, who="")[page.better]["value"] == letter


def test_after_a_fault_the_next_message_follows_what_was_followed(
    page: Any, assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Iterator[None]:
        raise MemoryError

    place = last(page, sent(page, page.desk.shown(photograph(1))))
    (followed, *_) = page.desk.answers(place)
    with monkeypatch.context() as patched:
        patched.setattr(assistant.model, "generate", fail)
        steps = sent(page, place)
    assert "The model failed (MemoryError)" in steps[-1][page.status]
    failed = last(page, steps)
    assert failed.turn != place.turn and not page.desk.answers(failed)
    again = last(page, sent(page, failed))
    turn = page.desk.conversation(again).turns[again.turn]
    assert turn.parent == followed.answer and len(page.desk.answers(again)) == 3
