"""Feedback over several turns on photographs in COCO's format: do descriptions get better?

An annotator (rules on the annotated objects, or a language model) judges each response, and its
refinement is the next user turn. A response that is perfect on every aspect, or that the annotator
has no advice on, ends its dialogue; its last response counts for all later turns. Figures are mean
ratings, 1-4, and shares of perfect responses per turn; `repaired` is the share of the dialogues
with an imperfect first response that end with a perfect one. `user` replaces what the user says,
as a control: the annotator then only judges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from dress.data.sources.coco_index import read_index
from dress.errors import InputError, Reject
from dress.evaluation.benchmark import Answered, Example, Label, Labels, Ratios
from dress.evaluation.benchmarks.chair import asked_of_each, draw_images
from dress.evaluation.public import PublicBenchmark, Unanswered
from dress.feedback.annotator import Annotator, annotate_groups
from dress.feedback.oracle import OracleAnnotator
from dress.settings import Positive, checked
from dress.types import Dialogue, Feedback, Sample, Turn

Source = Literal["annotator", "empty", "repeat"]


class PhotoInteractionBenchmark(PublicBenchmark):
    """Ask for a description of `limit` images drawn with `seed`, or of all, and refine it."""

    name = "photo_interaction"

    @checked
    def __init__(
        self,
        *,
        annotator: Annotator,
        root: str | None = None,
        captions: str = "coco/annotations/captions_val2014.json",
        instances: str = "coco/annotations/instances_val2014.json",
        images: str = "coco/val2014",
        question: str = "Describe this image in detail.",
        turns: Positive = 3,
        user: Source = "annotator",
        limit: Positive | None = None,
        seed: int = 0,
        unanswered: Unanswered = "error",
    ) -> None:
        super().__init__(root=root, images=images, unanswered=unanswered)
        self.annotator, self.captions, self.instances = annotator, captions, instances
        self.question, self.user, self.limit, self.seed = question, user, limit, seed
        self.max_turns = turns + 1

    def files(self) -> Sequence[str]:
        return [self.captions, self.instances]

    def inputs(self) -> dict[str, str]:
        if isinstance(self.annotator, OracleAnnotator):
            raise InputError(
                "annotator=oracle knows no photographs: give data=photographs, which brings "
                "annotator=rules, or annotator=llm."
            )
        return super().inputs()

    def read_examples(self) -> Iterator[Example]:
        index = read_index(self.path(self.captions), self.path(self.instances))
        photographs = draw_images(index.photographs, limit=self.limit, seed=self.seed)
        return asked_of_each(photographs, self.question)

    def replies(self, asked: Sequence[tuple[Example, Sequence[Turn]]]) -> list[str | None]:
        judged = self._judged([(example, [turns]) for example, turns in asked])
        return [self._reply(example, f) for (example, _), (f,) in zip(asked, judged, strict=True)]

    def _reply(self, example: Example, feedback: Feedback) -> str | None:
        if feedback.is_perfect or not feedback.refinement:
            return None
        said = {"annotator": feedback.refinement, "empty": "", "repeat": example.question}
        return said[self.user]

    def joint_labels(self, answered: Sequence[Answered]) -> Iterable[Labels]:
        """Judge every response, in the light of the turns before it."""
        parts = [(a.example, [a.turns[: n + 1] for n in range(len(a.turns))]) for a in answered]
        return (self._counts(feedbacks) for feedbacks in self._judged(parts))

    def _judged(
        self, parts: Sequence[tuple[Example, Sequence[Sequence[Turn]]]]
    ) -> Iterator[list[Feedback]]:
        """Yield feedback on the last turn of each dialogue; Reject where there is none."""
        samples = (
            Sample(
                id=example.id,
                images=example.images or (self.image(example),),
                dialogues=tuple(Dialogue(tuple(turns)) for turns in dialogues),
                annotations=example.annotations,
            )
            for example, dialogues in parts
        )
        for group in annotate_groups(self.annotator, samples):
            if isinstance(group, Reject):
                raise group
            yield [d.turns[-1].feedback for d in group.dialogues if d.turns[-1].feedback]

    def _counts(self, feedbacks: Sequence[Feedback]) -> dict[str, Label]:
        labels: dict[str, Label] = {}
        for number in range(self.max_turns):
            feedback = feedbacks[min(number, len(feedbacks) - 1)]
            rated = {aspect: float(j.rating) for aspect, j in feedback.judgements.items()}
            rated |= {"mean": feedback.mean_rating, "perfect": float(feedback.is_perfect)}
            labels |= {f"turn_{number}/{name}": (v, 1.0) for name, v in rated.items()}
        if not feedbacks[0].is_perfect:
            labels["repaired"] = (float(feedbacks[-1].is_perfect), 1.0)
        return labels

    def metrics(self, ratios: Ratios) -> dict[str, Any]:
        figures = dict(ratios)
        for number in range(1, self.max_turns):
            before, after = (ratios[f"turn_{n}/mean"] for n in (number - 1, number))
            figures[f"gain_{number}"] = after - before
        return {f"{self.name}/{name}": value for name, value in figures.items()}
