"""Answers side by side in Chromium: samples of one model, and two models that show no names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dress.assistant import Assistant
from dress.chat.processor import UNREADABLE
from dress.data.sources.llava_preference import LlavaPreferenceSource
from dress.feedback.feedback_folder import IMAGES, PREFERENCES, FeedbackFolder
from dress.page.chat_service import ChatService
from dress.page.streamer import Streamer
from dress.records import Sample
from tests.integration.small import answered_samples, make_assistant
from tests.page.browsing import answered, opened, picture, prefer, saved, send

pytest.importorskip("gradio", reason="the extra `chat` is not installed")
pytestmark = pytest.mark.browser
NAMES = ("dress_stage2-aaaa", "dress_stage3-bbbb")


@pytest.fixture(scope="module")
def assistants() -> dict[str, Assistant]:
    """Two models that answer otherwise."""
    return {name: make_assistant(answered_samples(), seed=n) for n, name in enumerate(NAMES)}


@contextmanager
def served(assistants: dict[str, Assistant], folder: Path) -> Iterator[tuple[ChatService, str]]:
    from dress.page.chat_page import ChatPage
    from dress.page.server import serving

    streamers = [
        Streamer(name=name, assistant=assistant, max_new_tokens=8)
        for name, assistant in assistants.items()
    ]
    service = ChatService(streamers=streamers, folder=FeedbackFolder(folder))

    def build() -> Any:
        return ChatPage(service, commands=[]).blocks

    with serving(build, host="127.0.0.1", port=0, per_minute=1000) as address:
        yield service, address


def shown(tab: Any) -> list[tuple[str, str]]:
    """Return title and text of each answer."""
    cards = tab.locator(".answer").all()
    return [(c.locator("b").inner_text(), c.locator("p").inner_text()) for c in cards]


def test_one_of_two_samples_is_chosen_and_the_pair_is_data(
    chromium: Any, assistants: dict[str, Assistant], tmp_path: Path
) -> None:
    one = {NAMES[0]: assistants[NAMES[0]]}
    with served(one, tmp_path / "said") as (service, address), opened(chromium, address) as tab:
        picture(tab, tmp_path)
        tab.get_by_text("Own ratings, temperature, samples").click()
        for label, value in (("Temperature", "1.5"), ("Samples (of a temperature above 0)", "2")):
            number = tab.get_by_label(f"number input for {label}")
            number.fill(value)
            number.press("Tab")
        send(tab, "What is it?")
        answered(tab, times=1)
        (first, second) = shown(tab)
        assert [first[0][0], second[0][0]] == ["A", "B"] and first[1] != second[1]
        prefer(tab, "B")
        saved(tab)
    source = LlavaPreferenceSource(root=str(service.folder.root), file=PREFERENCES, images=IMAGES)
    (row,) = source.rows("candidates")
    (sample,) = source.convert("candidates", row)
    assert isinstance(sample, Sample)
    assert [d.turns[-1].user for d in sample.dialogues] == ["What is it?"] * 2
    answers = [(d.turns[-1].model or "").split() for d in sample.dialogues]
    assert answers == [first[1].split(), second[1].split()]
    assert sample.annotations["scores"] == [0.0, 1.0]


def test_blind_no_name_is_shown_before_the_choice_which_is_kept_of_the_right_model(
    chromium: Any, assistants: dict[str, Assistant], tmp_path: Path
) -> None:
    orders = set()
    with served(assistants, tmp_path / "said") as (service, address):
        with opened(chromium, address) as tab:
            picture(tab, tmp_path)
            (image,) = (service.folder.root / IMAGES).iterdir()
            alone = {
                name: assistant.respond(
                    image, "What is it?", condition="best", max_new_tokens=8
                ).rstrip(UNREADABLE)
                for name, assistant in assistants.items()
            }
            assert alone[NAMES[0]] != alone[NAMES[1]]
            tab.get_by_label("Blind: no names").check()
            tab.get_by_text("What the model reads").click()
            while len(orders) < 2:  # a third would be a name in the wrong place
                send(tab, "What is it?")
                answered(tab, times=1)
                assert not any(name in tab.content() for name in NAMES)
                hidden = shown(tab)
                assert [title for title, _ in hidden] == ["A", "B"]
                prefer(tab, "A")
                saved(tab)
                titles, texts = zip(*shown(tab), strict=True)
                order = tuple(name for title in titles for name in NAMES if name in title)
                assert [text.split() for text in texts] == [alone[n].split() for n in order]
                (session,) = service.folder.conversations.values()
                *_, preferred = session.preferred.values()
                assert session.answers[preferred.better].model == order[0]
                assert session.answers[preferred.worse].model == order[1]
                orders.add(order)
                assert len(session.turns) < 20  # alike in all of them once in half a million
                tab.get_by_role("button", name="Edit").click()
                tab.wait_for_selector(".history:not(:has(.user))", state="attached")
    assert orders == {NAMES, NAMES[::-1]}
