"""Generate, label and pool: from an assistant and a benchmark to metrics with intervals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dress.assistant import Assistant, Prompt
from dress.evaluation.benchmark import Benchmark, Example, Labels
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
    on_batch: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Write `responses.jsonl` and `images/` to `directory`; return metrics with 95 % intervals."""
    (directory / IMAGES).mkdir(exist_ok=True)
    (directory / RESPONSES).unlink(missing_ok=True)
    condition = assistant.condition.target(target)
    clusters: list[str] = []
    labels: list[Labels] = []
    for chunk in _chunks(benchmark.examples()):
        prompts = [
            Prompt(images=e.images, turns=(Turn(user=e.question),), condition=condition)
            for e in chunk
        ]
        responses = assistant.generate(
            prompts,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            batch_size=batch_size,
            on_batch=on_batch,
        )
        for example, (response,) in zip(chunk, responses, strict=True):
            clusters.append(example.cluster)
            labels.append(benchmark.labels(example, response))
            row = _row(benchmark, example, response, target=target, directory=directory)
            append_line(directory / RESPONSES, row)
    names, sums = pool(clusters, labels)
    return bootstrap(names, sums, benchmark.metrics)


def _chunks(examples: Iterator[Example]) -> Iterator[Sequence[Example]]:
    while chunk := list(islice(examples, _CHUNK)):
        yield chunk


def _row(
    benchmark: Benchmark, example: Example, response: str, *, target: str, directory: Path
) -> dict[str, Any]:
    return {
        "id": example.id,
        "image": _saved(example.images[0], directory),
        "question": example.question,
        "answer": example.answer,
        "condition": target,
        "turn": 0,
        "response": response,
        **benchmark.row(example),
    }


def _saved(image: bytes, directory: Path) -> str:
    """Save an image once, under its content hash; return the path within the artifact."""
    path = directory / IMAGES / f"{hashlib.sha256(image).hexdigest()[:16]}.jpg"
    if not path.exists():
        path.write_bytes(image)
    return f"{IMAGES}/{path.name}"
