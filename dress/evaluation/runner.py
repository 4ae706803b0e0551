"""Generate, label and pool: from an assistant and a benchmark to metrics with intervals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from dress.assistant import Assistant, Prompt
from dress.evaluation.benchmark import Benchmark, Example, Interaction, Labels
from dress.evaluation.statistics import bootstrap, pool
from dress.files import append_line
from dress.types import Turn

_CHUNK = 2048
RESPONSES, IMAGES = "responses.jsonl", "images"


def evaluate(
    assistant: Assistant,
    benchmark: Benchmark,
    *,
    target: str,
    directory: Path,
    max_new_tokens: int,
    temperature: float,
    batch_size: int,
    guidance: float = 0.0,
    contrast: str = "worst",
    on_batch: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Write `responses.jsonl` and `images/` to `directory`; return metrics with 95 % intervals."""
    (directory / IMAGES).mkdir(exist_ok=True)
    (directory / RESPONSES).unlink(missing_ok=True)
    clusters: list[str] = []
    labels: list[Labels] = []
    generate = partial(
        assistant.generate,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        batch_size=batch_size,
        guidance=guidance,
        contrast=assistant.condition.target(contrast),
    )
    condition = assistant.condition.target(target)
    for chunk in _chunks(benchmark.examples()):
        dialogues = _converse(generate, benchmark, chunk, condition=condition, on_batch=on_batch)
        for example, turns in zip(chunk, dialogues, strict=True):
            clusters.append(example.cluster)
            labels.append(benchmark.labels(example, turns))
            shared = {
                "id": example.id,
                "cluster": example.cluster,
                "image": _saved(example.images[0], directory),
                "question": example.question,
                "answer": example.answer,
                "condition": target,
                "labels": {name: list(label) for name, label in labels[-1].items()},
                **benchmark.row(example),
            }
            for row in _rows(turns):
                append_line(directory / RESPONSES, shared | row)
    names, sums = pool(clusters, labels)
    return bootstrap(names, sums, benchmark.metrics)


def _converse(
    generate: Callable[..., list[list[str]]],
    benchmark: Benchmark,
    examples: Sequence[Example],
    *,
    condition: str,
    on_batch: Callable[[int], None] | None,
) -> list[list[Turn]]:
    """Let all examples talk side by side until the benchmark has nothing more to say."""
    dialogues: list[list[Turn]] = [[] for _ in examples]
    said: dict[int, str] = {i: example.question for i, example in enumerate(examples)}
    rounds = benchmark.max_turns if isinstance(benchmark, Interaction) else 1
    for number in range(rounds):
        prompts = [
            Prompt(examples[i].images, (*dialogues[i], Turn(user)), condition)
            for i, user in said.items()
        ]
        answers = generate(prompts, on_batch=None if number else on_batch)
        for (i, user), (response,) in zip(said.items(), answers, strict=True):
            dialogues[i].append(Turn(user, response))
        if number + 1 < rounds and isinstance(benchmark, Interaction):
            replies = {i: benchmark.reply(examples[i], dialogues[i]) for i in said}
            said = {i: reply for i, reply in replies.items() if reply is not None}
    return dialogues


def _rows(turns: Sequence[Turn]) -> Iterator[dict[str, Any]]:
    """What differs between the rows of one dialogue; `feedback` is what the user said next."""
    replies = [turn.user for turn in turns[1:]]
    for number, (turn, reply) in enumerate(zip_longest(turns, replies)):
        yield {"turn": number, "response": turn.model, "feedback": reply}


def _chunks(examples: Iterator[Example]) -> Iterator[Sequence[Example]]:
    while chunk := list(islice(examples, _CHUNK)):
        yield chunk


def _saved(image: bytes, directory: Path) -> str:
    """Save an image once, under its content hash; return the path within the artifact."""
    path = directory / IMAGES / f"{hashlib.sha256(image).hexdigest()[:16]}.jpg"
    if not path.exists():
        path.write_bytes(image)
    return f"{IMAGES}/{path.name}"
