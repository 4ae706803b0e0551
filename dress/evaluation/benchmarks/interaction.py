"""Feedback over several turns on the world: does a response get better when told how?

After each response the oracle's refinement is the next user turn; a response that is perfect on
every aspect ends its dialogue, and its last response counts for all later turns. Responses that
are perfect at once hear feedback about another scene instead, one turn, or what is false:
`overcorrection` is the share that is spoilt by it. `feedback` replaces what the others hear, for
controls. faulty_first.py has the protocol in which all models answer for the same faults.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

from dress.evaluation.benchmark import Example, Label, Labels, Ratios
from dress.evaluation.benchmarks.faulty_first import Control, FaultyFirstBenchmark
from dress.evaluation.benchmarks.world import (
    ImageMode,
    WorldBenchmark,
    aspects,
    response_labels,
    truth,
)
from dress.records import Detail
from dress.settings import Positive, Share, checked
from dress.types import Feedback, Turn
from dress.world.advice import foreign_advice
from dress.world.questions import Question
from dress.world.scene import Scene
from dress.world.scene_oracle import Oracle, false_hint

Source = Literal["oracle", "other", "empty", "repeat", "wrong"]
_REPAIR_TURNS = 3


class InteractionBenchmark:
    """The world's questions with `turns` turns of feedback after the first response."""

    name = "interaction"

    @checked
    def __init__(
        self,
        *,
        scenes: Positive,
        seed: int = 0,
        turns: Positive = 4,
        detail: Detail = "hint",
        feedback: Source = "oracle",
        images: ImageMode = "true",
        cooccurrence: Share = 0.3,
    ) -> None:
        self.world = WorldBenchmark(
            scenes=scenes, seed=seed, images=images, cooccurrence=cooccurrence
        )
        self.turns, self.max_turns, self.feedback = turns, turns + 1, feedback
        self.oracle = Oracle(detail=detail)

    def examples(self) -> Iterator[Example]:
        """Yield the world's examples, each with the feedback that some other scene would get."""
        examples = list(self.world.examples())
        scenes = list({e.annotations["number"]: truth(e)[0] for e in examples}.values())
        for example in examples:
            rng = random.Random(f"other:{example.id}")
            number = example.annotations["number"]
            later = scenes[number + 1 :] + scenes[:number]
            told = foreign_advice(truth(example)[1].task, later, self.oracle, rng)
            annotations = {**example.annotations, "other_feedback": told}
            yield replace(example, annotations=annotations)

    def _judge(self, question: Question, scene: Scene, response: str) -> Feedback:
        return self.oracle.annotate(question, scene, response, rng=random.Random(0))

    def replies(self, asked: Sequence[tuple[Example, Sequence[Turn]]]) -> list[str | None]:
        return [self.reply(example, turns) for example, turns in asked]

    def reply(self, example: Example, turns: Sequence[Turn]) -> str | None:
        other = example.annotations["other_feedback"]
        if self._perfect(example, turns[-1]):
            misleading = self._false(example, turns[-1]) if self.feedback == "wrong" else other
            return misleading if len(turns) == 1 else None
        if len(turns) > 1 and self._perfect(example, turns[0]):
            return None
        if self.feedback == "oracle":
            scene, question = truth(example)
            return self._judge(question, scene, turns[-1].model or "").refinement
        if self.feedback == "wrong":
            return self._false(example, turns[-1])
        return {"other": other, "empty": "", "repeat": example.question}[self.feedback]

    def _false(self, example: Example, turn: Turn) -> str:
        scene, question = truth(example)
        rng = random.Random(f"false:{example.id}")
        return false_hint(question, scene, turn.model or "", rng)

    def _perfect(self, example: Example, turn: Turn) -> bool:
        scene, question = truth(example)
        return self._judge(question, scene, turn.model or "").is_perfect

    def labels(self, example: Example, turns: Sequence[Turn]) -> Labels:
        scene, question = truth(example)
        perfect = [self._perfect(example, turn) for turn in turns]
        labels: dict[str, Label] = {}
        if perfect[0]:
            turns = turns[:1]
            if len(perfect) > 1:
                labels["overcorrection"] = (float(not perfect[1]), 1)
        else:
            after = perfect[min(_REPAIR_TURNS, len(perfect) - 1)]
            labels["repaired"] = (float(after), 1)
            labels |= self._changes(example, turns)
        for number in range(self.max_turns):
            response = turns[min(number, len(turns) - 1)].model or ""
            counts = response_labels(question, scene, response)
            labels |= {f"turn_{number}/{name}": label for name, label in counts.items()}
        return labels

    def _changes(self, example: Example, turns: Sequence[Turn]) -> dict[str, Label]:
        """Count per turn of feedback whether all became perfect, or what was perfect got lost."""
        scene, question = truth(example)
        rated = [self._judge(question, scene, turn.model or "").judgements for turn in turns]
        labels: dict[str, Label] = {}
        for number, (before, after) in enumerate(pairwise(rated), start=1):
            fixed = all(j.rating == 4 for j in after.values())
            broken = any(j.rating == 4 and after[aspect].rating < 4 for aspect, j in before.items())
            labels |= {f"fixed_{number}": (fixed, 1), f"broken_{number}": (broken, 1)}
        return labels

    def metrics(self, ratios: Ratios) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        previous = None
        for number in range(self.max_turns):
            prefix = f"turn_{number}/"
            own = {n.removeprefix(prefix): r for n, r in ratios.items() if n.startswith(prefix)}
            combined = aspects(own)
            figures[f"turn_{number}"] = combined.pop("mean")
            figures |= {f"{aspect}/turn_{number}": value for aspect, value in combined.items()}
            if previous is not None:
                figures[f"gain_{number}"] = figures[f"turn_{number}"] - previous
            previous = figures[f"turn_{number}"]
        figures |= {name: ratio for name, ratio in ratios.items() if "/" not in name}
        return {f"world/interaction/{name}": value for name, value in figures.items()}

    def row(self, example: Example) -> dict[str, Any]:
        return self.world.row(example)


@checked
def interaction(
    *,
    scenes: Positive,
    seed: int = 0,
    first: Literal["own", "faulty"] = "own",
    openings: str = "",
    turns: Positive = 4,
    detail: Detail = "hint",
    feedback: Source = "oracle",
    controls: Sequence[Control] = (),
    images: ImageMode = "true",
    cooccurrence: Share = 0.3,
) -> InteractionBenchmark | FaultyFirstBenchmark:
    """Build the benchmark whose dialogues open with the model's own response or with a faulty one.

    `openings` and `controls` are for `faulty`, `feedback` for `own`.
    """
    if first == "own":
        return InteractionBenchmark(
            scenes=scenes,
            seed=seed,
            turns=turns,
            detail=detail,
            feedback=feedback,
            images=images,
            cooccurrence=cooccurrence,
        )
    return FaultyFirstBenchmark(
        openings=openings,
        scenes=scenes,
        seed=seed,
        turns=turns,
        detail=detail,
        controls=controls,
        images=images,
        cooccurrence=cooccurrence,
    )
