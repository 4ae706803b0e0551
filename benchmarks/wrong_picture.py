"""What a perfect look at the wrong picture is worth by chance, for benchmark.images=shuffled.

    python benchmarks/wrong_picture.py [SCENES]

Each scene is described, and its things are counted and looked for, as the next one is. A model that
sees well has these figures with shuffled images; one that has a shortcut through the text has more.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

from dress.evaluation.benchmark import Example, Label
from dress.evaluation.benchmarks.world import WorldBenchmark, truth
from dress.types import Turn
from dress.world.grammar import kind_phrase
from dress.world.questions import Question, answer_vqa, asked_for, reference, singular
from dress.world.scene import Scene


def seen(question: Question, scene: Scene) -> str | None:
    """Answer from another scene what can be asked of any scene."""
    if question.task == "describe":
        return reference(question, scene, random.Random(0))
    if question.task == "existence":
        kinds = {kind_phrase(kind) for kind in scene.kinds}
        key = "yes" if asked_for(question.text) in kinds else "no"
    elif question.task == "count":
        counted = asked_for(question.text)
        value = singular(counted.removesuffix(" objects")) if counted != "objects" else ""
        key = str(sum(not value or value in thing.kind for thing in scene.things))
    else:
        return None
    return answer_vqa(question, scene, key, terse=True)


def labels(benchmark: WorldBenchmark) -> Iterator[tuple[str, Label]]:
    examples: list[Example] = list(benchmark.examples())
    scenes = {example.annotations["number"]: truth(example)[0] for example in examples}
    for example in examples:
        other = scenes[(example.annotations["number"] + 1) % len(scenes)]
        if (response := seen(truth(example)[1], other)) is not None:
            yield from benchmark.labels(example, (Turn(example.question, response),)).items()


def main() -> None:
    benchmark = WorldBenchmark(scenes=int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    sums: dict[str, tuple[float, float]] = {}
    for name, (value, count) in labels(benchmark):
        before = sums.get(name, (0.0, 0.0))
        sums[name] = (before[0] + value, before[1] + count)
    for name in ("recall", "chair_i", "chair_s", "count", "existence"):
        print(f"world/{name} {sums[name][0] / sums[name][1]:.3f}")


if __name__ == "__main__":
    main()
