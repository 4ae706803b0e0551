from __future__ import annotations

import pytest

from dress.errors import Reject
from dress.feedback.annotator import Annotator, annotate_groups
from dress.feedback.given import GivenAnnotator
from dress.types import Dialogue, Feedback, Judgement, Sample, Turn

FIRST, LAST = (
    Feedback(
        {
            "honesty": Judgement(r, "So."),
        }
    )
    for r in (1, 4)
)


def group(last: Feedback | None) -> Sample:
    turns = (Turn("What?", "This.", FIRST), Turn("More.", "That.", last))
    return Sample("id", (b"x",), (Dialogue(turns),))


def test_every_turn_keeps_its_feedback() -> None:
    annotator = GivenAnnotator()
    assert isinstance(annotator, Annotator)
    assert list(annotate_groups(annotator, [group(LAST)])) == [group(LAST)]


def test_a_last_turn_without_feedback_is_a_reject() -> None:
    with pytest.raises(Reject):
        GivenAnnotator().annotate(group(None), group(None).dialogues[0])
    [reject] = annotate_groups(GivenAnnotator(), [group(None)])
    assert isinstance(reject, Reject)
    assert (reject.reason, reject.key) == ("no feedback", "id")
