"""People as an annotator: answers are served as a queue until enough have judged each."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from dress.errors import InputError, Reject
from dress.feedback.annotator import annotate_alone
from dress.feedback.feedback_folder import FeedbackFolder
from dress.page.access import check_extra, token_for, users
from dress.page.annotation_queue import AnnotationQueue, Item, merged
from dress.records import Dialogue, Feedback, Sample
from dress.settings import Positive, Whole, checked

WAIT_S = 0.5


class HumanAnnotator:
    """Serve a page until every answer was judged by `overlap` people. A later run goes on."""

    @checked
    def __init__(
        self,
        *,
        overlap: Positive,
        folder: str,
        host: str,
        port: Whole,
        requests_per_minute: Positive,
    ) -> None:
        check_extra()
        token_for(host, os.environ)
        self.host, self.port, self.requests_per_minute = host, port, requests_per_minute
        self.queue = AnnotationQueue(folder=FeedbackFolder(Path(folder)), overlap=overlap)
        self.users = users(os.environ)

    def annotate(self, sample: Sample, dialogue: Dialogue) -> Feedback:
        return annotate_alone(self, sample, dialogue)

    def annotate_many(self, samples: Iterable[Sample | Reject]) -> Iterator[Sample | Reject]:
        """Wait until all is judged; the samples then come in their order."""
        taken = [self._taken(sample) for sample in samples]
        if not self._is_done():
            self._serve()
        said = self.queue.judged()
        for sample, items in taken:
            if isinstance(sample, Reject):
                yield sample
                continue
            dialogues = []
            for item in items:
                *earlier, last = item.dialogue.turns
                feedback = merged(said[item.answer].values())
                dialogues.append(Dialogue((*earlier, replace(last, feedback=feedback))))
            yield replace(sample, dialogues=tuple(dialogues))

    def _serve(self) -> None:
        from dress.page.annotation_page import AnnotationPage
        from dress.page.server import serving

        with serving(
            lambda: AnnotationPage(self.queue, users=self.users).blocks,
            host=self.host,
            port=self.port,
            per_minute=self.requests_per_minute,
        ) as address:
            print(f"annotate: {address} (Ctrl-C stops; a later run goes on)", flush=True)
            while not self._is_done():
                time.sleep(WAIT_S)
            time.sleep(2 * WAIT_S)  # for the last reply to reach its browser

    def _is_done(self) -> bool:
        done, total = self.queue.progress()
        return done == total

    def metrics(self) -> dict[str, float]:
        judged = self.queue.judged().values()
        return {
            "annotator/people": float(len({who for said in judged for who in said})),
            "annotator/judgements": float(sum(map(len, judged))),
            **self.queue.agreement(),
        }

    def _taken(self, sample: Sample | Reject) -> tuple[Sample | Reject, list[Item]]:
        if isinstance(sample, Reject):
            return sample, []
        try:
            return sample, self.queue.add(sample)
        except Reject as reject:
            return reject, []
        except InputError as error:  # a text that is too long for the page
            return Reject(str(error), key=sample.id, where="annotator"), []
