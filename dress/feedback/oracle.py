"""The world's annotator, which knows the scene, and what a response is truly worth."""

from __future__ import annotations

import random
from typing import Literal

from dress.errors import Reject
from dress.settings import Share, checked
from dress.types import Dialogue, Feedback, Sample
from dress.world.advice import advice_aside
from dress.world.questions import Question
from dress.world.scene import Scene
from dress.world.scene_oracle import Oracle, false_hint


class OracleAnnotator:
    """Judge responses about generated scenes; `noise` makes it err, `seed` says where."""

    @checked
    def __init__(
        self,
        *,
        noise: Share = 0.0,
        critique: Literal["objects", "kinds"] = "objects",
        detail: Literal["hint", "reveal"] = "hint",
        seed: int = 0,
    ) -> None:
        self.oracle = Oracle(noise=noise, critique=critique, detail=detail)
        self.seed = seed

    def annotate(self, sample: Sample, dialogue: Dialogue) -> Feedback:
        scene, question = _truth(sample)
        response = dialogue.turns[-1].model or ""
        rng = random.Random(f"oracle:{self.seed}:{sample.id}:{response}")
        return self.oracle.annotate(question, scene, response, rng=rng)

    def mislead(
        self, sample: Sample, dialogue: Dialogue, *, kind: Literal["wrong", "aside"]
    ) -> str | None:
        scene, question = _truth(sample)
        response = dialogue.turns[-1].model or ""
        rng = random.Random(f"{kind}:{self.seed}:{sample.id}:{response}")
        if kind == "aside":
            return advice_aside(question.task, scene, self.oracle, rng)
        return false_hint(question, scene, response, rng)


def _truth(sample: Sample) -> tuple[Scene, Question]:
    return (
        Scene.from_json(sample.annotations["scene"]),
        Question.from_json(sample.annotations["question"]),
    )


def true_score(sample: Sample, dialogue: Dialogue) -> float | None:
    """Return the mean rating, 1 to 4, of an oracle that never errs; None for photographs."""
    if not {"scene", "question"} <= sample.annotations.keys():
        return None
    try:
        return OracleAnnotator(noise=0.0).annotate(sample, dialogue).mean_rating
    except Reject:  # annotations of these names that are not the world's
        return None
