"""What people say on the chat page, in short, and a script that says it until it is killed."""

from __future__ import annotations

import sys
from pathlib import Path

from dress.feedback.conversations import Answered, Asked, Event, Judged
from dress.feedback.feedback_folder import FeedbackFolder
from tests.data.coco_files import photograph


def asked(turn: str = "t1", *, session: str = "s", parent: str = "", text: str = "What?") -> Asked:
    return Asked(session=session, turn=turn, text=text, parent=parent)


def answered(
    answer: str = "a1", *, turn: str = "t1", session: str = "s", text: str = "A dog."
) -> Answered:
    return Answered(session=session, turn=turn, answer=answer, text=text, model="m", target="best")


def judged(answer: str = "a1", *, session: str = "s", who: str = "", **ratings: int) -> Judged:
    return Judged(session=session, answer=answer, who=who, ratings=ratings)


def opened(folder: FeedbackFolder, event: Asked, *, picture: int = 1) -> Asked:
    """Give an opening turn its picture."""
    image = folder.add_image(photograph(picture))
    return Asked(**vars(event) | {"image": image})


def main(root: str, name: str) -> None:
    """Say one thing after another, and on a line of its own what was confirmed."""
    folder = FeedbackFolder(Path(root))
    for number in range(10_000):
        turn, answer, session = f"{name}-{number}", f"{name}-{number}-a", f"{name}-{number // 5}"
        events: list[Event] = [
            opened(folder, asked(turn, session=session)),
            answered(answer, turn=turn, session=session, text="word " * 40),
            judged(answer, session=session, helpfulness=number % 4 + 1),
        ]
        for event in events:
            folder.add(event)
            print(f"{type(event).__name__.lower()} {answer}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
