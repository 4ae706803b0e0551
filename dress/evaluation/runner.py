"""Generate what a benchmark asks for; a run that was interrupted goes on where it stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from dress.distributed import gather, place
from dress.errors import Reject
from dress.evaluation.benchmark import Answered, Benchmark, Example, Interaction
from dress.evaluation.public import PublicBenchmark
from dress.feedback.sampler import Sampler
from dress.files import append_line, naming, read_lines
from dress.records import Prompt, Turn

BATCHES = 8  # generated between two savings
IMAGES = "images"


@dataclass(frozen=True)
class Generated:
    answered: tuple[Answered, ...]
    unanswered: tuple[Reject, ...]  # questions whose image cannot be used or that got no response


def generate(
    sampler: Sampler,
    benchmark: Benchmark,
    *,
    target: str,
    directory: Path,
    journal: Path,
    max_new_tokens: int,
    temperature: float,
    batch_size: int,
    guidance: float = 0.0,
    contrast: str = "worst",
    on_batch: Callable[[int], None] | None = None,
) -> None:
    """Answer every example, saving images to `directory` and finished chunks to `journal`.

    A chunk is a function of the examples before it, so that a run which was interrupted gives what
    one that was not would have given. Processes that work together share its batches, and the
    first one saves what all of them said. A question that gets no response raises Reject unless the
    benchmark skips those.
    """
    (directory / IMAGES).mkdir(exist_ok=True)
    done = {str(row["id"]) for row in read_lines(journal)}
    gather(None)  # all have read the journal before one writes to it
    answer = partial(
        sampler.generate,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        batch_size=batch_size,
        guidance=guidance,
        contrast=sampler.condition.target(contrast),
        together=True,
    )
    condition = partial(sampler.condition.at, text=sampler.condition.target(target))
    saves = place()[0] == 0
    for chunk in _chunks(benchmark.examples(), BATCHES * batch_size):
        if all(example.id in done for example in chunk):
            if on_batch:
                on_batch(len(chunk))
            continue
        shown, found = _with_images(benchmark, chunk)
        said = _converse(answer, benchmark, shown, condition=condition, on_batch=on_batch)
        if saves:
            found += [
                turns if isinstance(turns, Reject) else _saved(example, turns, directory)
                for example, turns in zip(shown, said, strict=True)
            ]
            for item in found:
                append_line(journal, _journalled(item))


def restore(benchmark: Benchmark, journal: Path) -> Generated:
    """Return what `generate` has saved, in the order of the benchmark."""
    done = {str(row["id"]): row for row in read_lines(journal)}
    found = [_restored(example, done[example.id]) for example in benchmark.examples()]
    return Generated(
        tuple(item for item in found if isinstance(item, Answered)),
        tuple(item for item in found if isinstance(item, Reject)),
    )


def _with_images(
    benchmark: Benchmark, chunk: Sequence[Example]
) -> tuple[list[Example], list[Answered | Reject]]:
    """Open the images of a public benchmark; those of others are there already."""
    if not isinstance(benchmark, PublicBenchmark):
        return list(chunk), []
    shown: list[Example] = []
    rejects: list[Answered | Reject] = []
    for example in chunk:
        try:
            shown.append(replace(example, images=(benchmark.image(example),)))
        except Reject as reject:
            if not _skips(benchmark):
                raise
            rejects.append(reject)
    return shown, rejects


def _skips(benchmark: Benchmark) -> bool:
    return isinstance(benchmark, PublicBenchmark) and benchmark.unanswered == "skip"


def _converse(
    answer: Callable[..., list[list[str]]],
    benchmark: Benchmark,
    examples: Sequence[Example],
    *,
    condition: Callable[[int], str],
    on_batch: Callable[[int], None] | None,
) -> list[list[Turn] | Reject]:
    """Let all examples talk side by side until the benchmark has nothing more to say.

    One that gets no response leaves, where the benchmark skips those.
    """
    rejects: dict[int, Reject] = {}
    dialogues = [list(example.turns) for example in examples]
    said = {i: example.question for i, example in enumerate(examples) if not example.turns}
    said |= _told(benchmark, examples, dialogues, [i for i, e in enumerate(examples) if e.turns])
    rounds = benchmark.max_turns if isinstance(benchmark, Interaction) else 1
    for number in range(rounds):
        prompts = [
            Prompt(examples[i].images, (*dialogues[i], Turn(user)), condition(len(dialogues[i])))
            for i, user in said.items()
        ]
        failed: dict[int, Reject] | None = {} if _skips(benchmark) else None
        answers = answer(prompts, rejects=failed, on_batch=None if number else on_batch)
        asked = list(said)
        rejects |= {asked[n]: reject for n, reject in (failed or {}).items()}
        for (i, user), responses in zip(said.items(), answers, strict=True):
            dialogues[i] += [Turn(user, response) for response in responses]
        if number + 1 < rounds:
            said = _told(benchmark, examples, dialogues, [i for i in asked if i not in rejects])
    return [
        rejects[i].at(where=benchmark.name, key=examples[i].id) if i in rejects else turns
        for i, turns in enumerate(dialogues)
    ]


def _told(
    benchmark: Benchmark,
    examples: Sequence[Example],
    dialogues: Sequence[Sequence[Turn]],
    numbers: Sequence[int],
) -> dict[int, str]:
    """Return what the user says next in those of some dialogues that go on."""
    if not numbers or not isinstance(benchmark, Interaction):
        return {}
    asked = [(examples[i], dialogues[i]) for i in numbers]
    # one process asks the user, who may be a language model
    told = gather(benchmark.replies(asked) if place()[0] == 0 else [])[0]
    return {i: text for i, text in zip(numbers, told, strict=True) if text is not None}


def _chunks(examples: Iterator[Example], size: int) -> Iterator[Sequence[Example]]:
    while chunk := list(islice(examples, size)):
        yield chunk


def _saved(example: Example, turns: Sequence[Turn], directory: Path) -> Answered:
    """Save an image once, under its content hash, and let go of it."""
    image = example.images[0]
    digest = hashlib.sha256(image).hexdigest()[:16]
    name = f"{IMAGES}/{digest}.jpg"
    if not (directory / name).exists():
        temporary = directory / f".{digest}.tmp"  # a kill leaves no half of an image
        with naming(directory / name):
            temporary.write_bytes(image)
            temporary.replace(directory / name)
    return Answered(replace(example, images=()), tuple(turns), name)


def _journalled(item: Answered | Reject) -> dict[str, object]:
    if isinstance(item, Reject):
        return {"id": item.key, "reject": [item.reason, item.where, item.detail]}
    turns = [[turn.user, turn.model] for turn in item.turns]
    return {"id": item.example.id, "image": item.image, "turns": turns}


def _restored(example: Example, row: dict[str, object]) -> Answered | Reject:
    if (rejected := row.get("reject")) is not None:
        assert isinstance(rejected, list)
        reason, where, detail = rejected
        return Reject(reason, key=example.id, where=where, detail=detail)
    turns = row["turns"]
    assert isinstance(turns, list)
    said = tuple(Turn(user, model) for user, model in turns)
    return Answered(replace(example, images=()), said, str(row["image"]))
