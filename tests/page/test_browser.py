"""The page in Chromium: what a person does from the first picture to the folder of data.

It needs gradio, playwright and a Chromium: pip install -e '.[chat]' playwright, and the system's.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dress.feedback.conversations import Answered
from dress.feedback.feedback_folder import FeedbackFolder
from dress.feedback.oracle import OracleAnnotator
from dress.page.chat_service import ChatService
from dress.page.streamer import Streamer
from tests.integration.small import answered_samples, make_assistant
from tests.page.browsing import answered, events, opened, picture, prefer, rate, saved, send

pytest.importorskip("gradio", reason="the extra `chat` is not installed")
pytestmark = pytest.mark.browser
EVIL = "<img src=x onerror='window.evil=1'><script>window.evil=1</script>${window.evil=1}{{x}}"


@pytest.fixture(scope="module")
def streamers() -> list[Streamer]:
    assistant = make_assistant(answered_samples())
    return [Streamer(name=n, assistant=assistant, max_new_tokens=40) for n in ("one", "two")]


@pytest.fixture(scope="module")
def service(streamers: list[Streamer], tmp_path_factory: pytest.TempPathFactory) -> ChatService:
    folder = FeedbackFolder(tmp_path_factory.mktemp("feedback"))
    return ChatService(streamers=streamers, folder=folder, annotator=OracleAnnotator())


@pytest.fixture(scope="module")
def address(service: ChatService) -> Iterator[str]:
    from dress.page.chat_page import ChatPage
    from dress.page.server import serving

    def build() -> Any:
        return ChatPage(service, commands=["python run.py"]).blocks

    with serving(build, host="127.0.0.1", port=0, per_minute=1000) as served:
        yield served


@pytest.fixture
def tab(chromium: Any, address: str) -> Iterator[Any]:
    with opened(chromium, address) as page:
        yield page


def test_ask_rate_criticise_refine_compare_and_reload(
    tab: Any, service: ChatService, tmp_path: Path
) -> None:
    picture(tab, tmp_path)
    send(tab, f"What? {EVIL}")
    answered(tab, times=1)
    assert tab.locator(".answer").count() == 2
    rate(tab, "Honesty", 2)
    saved(tab)
    tab.get_by_label("Honesty: what is wrong, or right").fill("There is no dog.")
    tab.get_by_label("Refinement: how to improve it").fill(f"Look again. {EVIL}")
    prefer(tab, "B")
    tab.get_by_role("button", name="Send refinement as next turn").click()
    answered(tab, times=2)
    assert tab.locator(".history .model").count() == 1
    (judged, *_) = reversed(events(service, "judged"))
    assert judged["ratings"] == {"honesty": 2}
    assert judged["critiques"] == {"honesty": "There is no dog."}
    assert events(service, "asked")[-1]["text"] == judged["refinement"] == f"Look again. {EVIL}"
    (preferred,) = events(service, "preferred")
    assert preferred["worse"] == judged["answer"]
    before = tab.locator(".history").inner_text(), tab.locator(".answers").inner_text()
    tab.reload()
    answered(tab, times=2)
    assert (tab.locator(".history").inner_text(), tab.locator(".answers").inner_text()) == before
    assert tab.evaluate("window.evil") is None
    row = json.loads((service.folder.root / "lvlm_nlf.jsonl").read_text().splitlines()[0])
    assert row["interaction"][0]["judgements"]["honesty"]["critique"] == "There is no dog."


def test_stop_edit_and_ask_again(tab: Any, service: ChatService, tmp_path: Path) -> None:
    for streamer in service.streamers:
        streamer.max_new_tokens = 300
    picture(tab, tmp_path)
    tab.locator("#message textarea").fill("Tell me all.")
    tab.get_by_role("button", name="Send").first.click()
    tab.wait_for_selector(".answers[aria-busy='true'] p:not(:text-is('…'))")
    tab.get_by_role("button", name="Stop").click()
    answered(tab, times=1)
    for streamer in service.streamers:
        streamer.max_new_tokens = 12
    assert events(service, "answered")[-1]["stopped"]
    tab.get_by_role("button", name="Edit").click()
    tab.wait_for_function("document.querySelector('#message textarea').value === 'Tell me all.'")
    send(tab, "Tell me less.")
    answered(tab, times=1)
    tab.get_by_role("button", name="Ask again").click()
    tab.wait_for_function("document.querySelector('.answers[aria-busy=\"true\"]')")
    answered(tab, times=1)
    assert [e["text"] for e in events(service, "asked")[-3:]] == [
        "Tell me all.",
        "Tell me less.",
        "Tell me less.",
    ]


def test_the_keyboard_alone_suffices(tab: Any, service: ChatService) -> None:
    def go(label: str) -> None:
        """Press Tab until what has the focus says so of itself."""
        said = (
            "(e => e === document.body ? '' : "
            "(e.labels?.[0]?.innerText || e.innerText || '').trim())(document.activeElement)"
        )
        for _ in range(80):
            tab.keyboard.press("Tab")
            if label in tab.evaluate(said):
                return
        raise AssertionError(f"{label} is not reached")

    go("Draw a scene")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("img.picture")
    go("Your message")
    tab.wait_for_function("document.querySelector('#message textarea').value !== ''")
    tab.keyboard.press("Enter")
    answered(tab, times=1)
    go("1")
    tab.keyboard.press("Space")
    saved(tab)
    go("Overall critique")
    tab.keyboard.type("Too short.")
    go("Save feedback")
    tab.keyboard.press("Enter")
    for _ in range(100):  # the page says "saved" of the rating already
        tab.wait_for_timeout(100)
        if (said := events(service, "judged")[-1]["critiques"]) != {}:
            break
    assert said == {"overall": "Too short."}
    go("Propose feedback")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".status:has-text('proposed')")


def test_a_question_that_is_chosen_is_the_message_and_own_words_stay(tab: Any) -> None:
    tab.get_by_role("button", name="Draw a scene").click()
    tab.wait_for_function("document.querySelector('#message textarea').value !== ''")
    message, questions = tab.locator("#message textarea"), tab.get_by_label("Questions about")
    message.fill("My own words")
    before = len(tab.asked)
    questions.focus()
    tab.keyboard.press("Tab")
    tab.wait_for_timeout(500)
    assert tab.asked[before:] == [] and message.input_value() == "My own words"
    questions.focus()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    tab.wait_for_function("document.querySelector('#message textarea').value !== 'My own words'")
    assert message.input_value() == questions.input_value() != ""


def test_hostile_pictures_and_faults_end_in_a_sentence(
    tab: Any, service: ChatService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    said = {
        "page.png": (EVIL.encode(), ".status:has-text('not a JPEG, PNG or WebP image')"),
        "bomb.png": (bomb.getvalue(), ".status:has-text('image too large')"),
        "large.png": (bytes(21 * 2**20), 'text=allowed size of 20.0 Mb: "large.png"'),
        "huge.png": (bytes(50 * 2**20), 'text=allowed size of 20.0 Mb: "huge.png"'),
    }
    for name, (data, sentence) in said.items():
        (tmp_path / name).write_bytes(data)
        tab.locator("input[type=file]").set_input_files(tmp_path / name)
        tab.wait_for_selector(sentence)
    assert not any(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*.png"))
    send(tab, "What?")
    tab.wait_for_selector(".status:has-text('give a picture first')")
    picture(tab, tmp_path)

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(service.streamers[0].assistant.model, "generate", fail)
        send(tab, "What?")
        tab.wait_for_selector(".status:has-text('The model failed (MemoryError)')")


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_screen(tab: Any, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 844})
    tab.get_by_role("button", name="Draw a scene").click()
    tab.wait_for_selector("img.picture")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_no_path_that_was_not_uploaded_is_read(tab: Any, address: str) -> None:
    """Ask for the upload of /etc/passwd as the page's own script would."""
    number = tab.evaluate(
        "window.gradio_config.dependencies.findIndex(d => d.targets.some(t => t[1] === 'upload'))"
    )
    assert number >= 0
    for secret in ("/etc/passwd", str(Path(__file__))):
        file = {"path": secret, "meta": {"_type": "gradio.FileData"}}
        values = tab.evaluate(
            "([number, file]) => window.gradio_config.dependencies[number].inputs.map(id => "
            "window.gradio_config.components.find(c => c.id === id).type === 'uploadbutton' "
            "? file : null)",
            [number, file],
        )
        assert file in values
        data = {"data": values, "fn_index": number, "session_hash": "x"}
        said = tab.evaluate(
            "async data => { const post = await fetch('/gradio_api/queue/join', {method: 'POST',"
            " headers: {'content-type': 'application/json'}, body: JSON.stringify(data)});"
            " const events = await fetch('/gradio_api/queue/data?session_hash=x');"
            " return await events.text(); }",
            data,
        )
        assert "root:" not in said and "importorskip" not in said
        assert '"success":false' in said.replace(" ", "") or "was not uploaded here" in said
    assert tab.evaluate("fetch('/gradio_api/file=/etc/passwd').then(r => r.status)") == 404


def test_answers_of_the_page_are_of_its_models(service: ChatService) -> None:
    answers = [a for c in service.folder.conversations.values() for a in c.answers.values()]
    assert answers and all(isinstance(a, Answered) and a.model in ("one", "two") for a in answers)
