"""An annotator for data that comes with its feedback."""

from __future__ import annotations

from dress.errors import Reject
from dress.types import Dialogue, Feedback, Sample


class GivenAnnotator:
    """Return the feedback that the last turn already has; a turn without any is a Reject."""

    def annotate(self, sample: Sample, dialogue: Dialogue) -> Feedback:
        feedback = dialogue.turns[-1].feedback
        if feedback is None:
            raise Reject("no feedback", key=sample.id, detail="the last turn was never judged")
        return feedback
