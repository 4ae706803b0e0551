"""Sample responses to prompts: groups of K dialogues of one turn, to be judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from dress.errors import Reject
from dress.feedback.sampler import Sampler
from dress.generation import Sampling
from dress.records import Prompt
from dress.types import Dialogue, Sample, Turn


def sample_responses(
    sampler: Sampler,
    samples: Sequence[Sample],
    *,
    targets: Sequence[str],
    num_samples: int,
    sampling: Sampling,
    seed: int,
    on_batch: Callable[[int], None] | None = None,
) -> Iterator[Sample | Reject]:
    """Replace the open turn of each sample by `num_samples` answered dialogues for each target.

    Equal responses to one prompt are kept once each time they were drawn: their number is the
    model's own probability.
    """
    conditions = [sampler.condition.target(target) for target in targets]
    openings = [sample.dialogues[0].turns for sample in samples]
    prompts = [
        Prompt(images=sample.images, turns=turns, condition=condition)
        for sample, turns in zip(samples, openings, strict=True)
        for condition in conditions
    ]
    rejects: dict[int, Reject] = {}
    answers = sampler.generate(
        prompts,
        **vars(sampling),
        num_samples=num_samples,
        seed=seed,
        rejects=rejects,
        on_batch=on_batch,
        together=True,
    )
    for number, (sample, turns) in enumerate(zip(samples, openings, strict=True)):
        first = number * len(conditions)
        own = range(first, first + len(conditions))
        if failed := [rejects[prompt] for prompt in own if prompt in rejects]:
            yield failed[0].at(where="prompts", key=sample.id)
            continue
        dialogues = tuple(
            Dialogue((*turns[:-1], Turn(user=turns[-1].user, model=response)))
            for response in chain.from_iterable(answers[first : first + len(conditions)])
        )
        yield replace(sample, dialogues=dialogues)
