"""The queue in Chromium: two people judge ten answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dress.feedback.feedback_folder import FeedbackFolder
from dress.page.annotation_queue import AnnotationQueue
from dress.records import Dialogue, Sample, Turn
from tests.data.coco_files import photograph

pytest.importorskip("gradio", reason="the extra `chat` is not installed")
pytestmark = pytest.mark.browser


def test_two_people_annotate_ten_answers(chromium: Any, tmp_path: Path) -> None:
    from dress.page.annotation_page import AnnotationPage
    from dress.page.server import serving

    queue = AnnotationQueue(folder=FeedbackFolder(tmp_path), overlap=2)
    for number in range(5):
        dialogues = tuple(Dialogue((Turn("What?", f"{n} dogs."),)) for n in range(2))
        queue.add(Sample(f"s{number}", (photograph(number),), dialogues))

    def build() -> Any:
        return AnnotationPage(queue, users={"ann": "secret", "bob": "hidden"}).blocks

    with serving(build, host="127.0.0.1", port=0, per_minute=1000) as address:
        for who, word in (("ann", "secret"), ("bob", "hidden")):
            tab = chromium.new_page()
            tab.goto(address)
            tab.get_by_label("Your name").fill(who)
            tab.get_by_label("Your password").fill("wrong")
            tab.get_by_role("button", name="Begin").click()
            tab.wait_for_selector(".status:has-text('not known')")
            tab.get_by_label("Your password").fill(word)
            tab.get_by_role("button", name="Begin").click()
            for number in range(10):
                tab.wait_for_function(
                    "n => document.querySelector('.history p') && "
                    "!document.querySelector('fieldset input:checked') && window.count !== n",
                    arg=number + 1,
                )
                for aspect in ("Helpfulness", "Honesty", "Harmlessness"):
                    group = tab.locator("fieldset", has_text=aspect)
                    group.get_by_label(str(1 + number % 4), exact=True).check()
                tab.evaluate("n => { window.count = n }", number + 1)
                done = len(queue.folder.conversations)
                tab.get_by_role("button", name="Submit and next").click()
                tab.wait_for_function("!document.querySelector('fieldset input:checked')")
                assert done == 5
            tab.wait_for_selector(".status:has-text('nothing is left for you')")
            tab.close()
    assert queue.progress() == (10, 10)
    assert all(len(said) == 2 for said in queue.judged().values())
