"""Does a model use what it is told? Dialogues that open with a fault that is not its own.

Every dialogue begins with the same faulty response for every model, sampled from a stage-1 model.
Then hint, answer, hint and so on; an answer that is perfect on every aspect ends the dialogue and
counts for all later turns. The same dialogues are held under controls, which say nothing, tell of
another scene, of another question about the same scene, or what is false. A model that answers
anew, whatever is said, repairs as much under these; `use_of_feedback` is what it repairs more when
it hears the truth.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

from dress.data.shard_index import read_all
from dress.data.split import SPLITS
from dress.errors import InputError
from dress.evaluation.benchmark import Example, Label, Labels, Ratios
from dress.evaluation.benchmarks.world import ImageMode, WorldBenchmark, truth
from dress.records import Detail, Feedback, Sample, Turn
from dress.settings import Positive, Share, checked
from dress.world.advice import advice_aside, foreign_advice
from dress.world.denial import denied, stated
from dress.world.scene import Scene
from dress.world.scene_oracle import Oracle, false_hint

Control = Literal["empty", "other", "aside", "wrong"]
HINT = "hint"


class FaultyFirstBenchmark:
    """The world's questions with `turns` turns of feedback after a response that is faulty.

    `openings` are shards of responses to these questions (experiment=dress_openings); the first
    faulty one of each opens the dialogues. A question without one is left out.
    """

    name = "interaction"

    @checked
    def __init__(
        self,
        *,
        openings: str,
        scenes: Positive,
        seed: int = 0,
        turns: Positive = 4,
        detail: Detail = "hint",
        controls: Sequence[Control] = ("empty", "other", "aside", "wrong"),
        images: ImageMode = "true",
        cooccurrence: Share = 0.3,
    ) -> None:
        self.world = WorldBenchmark(
            scenes=scenes, seed=seed, images=images, cooccurrence=cooccurrence
        )
        self.openings, self.turns, self.max_turns = openings, turns, turns
        self.arms: tuple[str, ...] = (HINT, *controls)
        self.oracle = Oracle(detail=detail)

    def examples(self) -> Iterator[Example]:
        """Yield each question once for each of the arms, with the response that opens it."""
        openings = read_openings(Path(self.openings))
        examples = list(self.world.examples())
        scenes = list({e.annotations["number"]: truth(e)[0] for e in examples}.values())
        for example in examples:
            sampled = openings.get(example.id)
            if sampled is None or sampled.annotations["scene"] != example.annotations["scene"]:
                raise InputError(
                    f"{self.openings} has no responses to {example.id}: build it with the same "
                    "benchmark.scenes, benchmark.seed and benchmark.cooccurrence."
                )
            responses = (dialogue.turns[-1].model or "" for dialogue in sampled.dialogues)
            response = next((r for r in responses if self._is_faulty(example, r)), None)
            if response is None:
                continue
            told = self._told(example, response, scenes)
            for arm in self.arms:
                yield replace(
                    example,
                    id=f"{example.id}-{arm}",
                    turns=(Turn(example.question, response),),
                    annotations={**example.annotations, "arm": arm, "told": told[arm]},
                )

    def _is_faulty(self, example: Example, response: str) -> bool:
        return bool(self._judge(example, response).refinement)

    def _judge(self, example: Example, response: str) -> Feedback:
        scene, question = truth(example)
        return self.oracle.annotate(question, scene, response, rng=random.Random(0))

    def _told(self, example: Example, response: str, scenes: list[Scene]) -> dict[str, str | None]:
        """Return what the user says in each arm; the hint follows from each response anew."""
        scene, question = truth(example)
        rng = random.Random(f"faulty first:{example.id}")
        number = example.annotations["number"]
        later = scenes[number + 1 :] + scenes[:number]
        return {
            HINT: None,
            "empty": "",
            "other": foreign_advice(
                question.task,
                later,
                self.oracle,
                rng,
                true=self._judge(example, response).refinement,
            ),
            "aside": advice_aside(question.task, scene, self.oracle, rng),
            "wrong": false_hint(question, scene, response, rng),
        }

    def replies(self, asked: Sequence[tuple[Example, Sequence[Turn]]]) -> list[str | None]:
        return [self.reply(example, turns) for example, turns in asked]

    def reply(self, example: Example, turns: Sequence[Turn]) -> str | None:
        feedback = self._judge(example, turns[-1].model or "")
        if feedback.is_perfect:
            return None
        told: str | None = example.annotations["told"]
        return feedback.refinement if example.annotations["arm"] == HINT else told

    def labels(self, example: Example, turns: Sequence[Turn]) -> Labels:
        scene, question = truth(example)
        arm = example.annotations["arm"]
        responses = [turn.model or "" for turn in turns]
        labels: dict[str, Label] = {}
        for number in range(1, self.turns + 1):
            response = responses[min(number, len(responses) - 1)]
            perfect = self._judge(example, response).is_perfect
            labels[f"{arm}/repaired_{number}"] = (float(perfect), 1)
        if arm == HINT:
            last = f"{HINT}/repaired_{self.turns}"
            labels[f"task/{question.task}"] = labels[last]
            repeated = [
                (said in stated(question, after))
                for before, after in pairwise(responses)
                for said in denied(question, scene, before)
            ]
            if repeated:
                labels["denied_repeated"] = (float(sum(repeated)), float(len(repeated)))
        return labels

    def metrics(self, ratios: Ratios) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for name, ratio in ratios.items():
            arm, _, figure = name.partition("/")
            figures[f"faulty/{figure if arm == HINT else name}"] = ratio
        if (repeated := figures.pop("faulty/denied_repeated", None)) is not None:
            figures["denied_repeated"] = repeated
        last = f"repaired_{self.turns}"
        for control in self.arms[1:]:
            gain = ratios[f"{HINT}/{last}"] - ratios[f"{control}/{last}"]
            figures[f"use_of_feedback/{control}"] = gain
        if "empty" in self.arms:
            figures["use_of_feedback"] = figures.pop("use_of_feedback/empty")
        return {f"world/interaction/{name}": value for name, value in figures.items()}

    def row(self, example: Example) -> dict[str, Any]:
        return self.world.row(example) | {"arm": example.annotations["arm"]}


def read_openings(directory: Path) -> dict[str, Sample]:
    """Return the responses that were sampled to each question, without the images."""
    stored = chain.from_iterable(read_all(directory / split) for split in SPLITS)
    return {group.id: replace(group, images=()) for group in stored}
