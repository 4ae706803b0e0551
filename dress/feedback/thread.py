"""One dialogue while it is rolled out."""

from __future__ import annotations

from dataclasses import dataclass, field

from dress.errors import Reject
from dress.types import Dialogue, Feedback, Sample, Turn


@dataclass
class Thread:
    """One dialogue as it grows; every turn in it has been answered and judged."""

    sample: Sample
    target: str
    turns: list[Turn] = field(default_factory=list)
    reject: Reject | None = None  # why the annotator could not judge it
    closed: bool = False  # its last response is the reference, or the first once more

    @property
    def task(self) -> str:
        return str(self.sample.annotations.get("task", ""))

    @property
    def dialogue(self) -> Dialogue:
        """All turns, with what was said before the rollout began."""
        return Dialogue((*self.sample.dialogues[0].turns[:-1], *self.turns))

    @property
    def feedback(self) -> Feedback:
        feedback = self.turns[-1].feedback
        assert feedback is not None
        return feedback

    @property
    def next_user(self) -> str:
        """What the user says next: the question, later the refinement."""
        return self.feedback.refinement if self.turns else self.sample.dialogues[0].turns[-1].user

    @property
    def is_open(self) -> bool:
        """Whether there is something left to say about the last response."""
        return self.reject is None and not self.closed and bool(self.feedback.refinement)

    @property
    def is_perfect(self) -> bool:
        return self.reject is None and self.feedback.is_perfect
