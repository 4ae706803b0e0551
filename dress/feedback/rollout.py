"""Sample responses to prompts and annotate them: groups of K dialogues with feedback."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from dress.assistant import Assistant, Prompt
from dress.data.rejects import Reject
from dress.feedback.annotator import Annotator
from dress.types import Dialogue, Sample, Turn


def sample_responses(
    assistant: Assistant,
    samples: Sequence[Sample],
    *,
    num_samples: int,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    on_batch: Callable[[int], None] | None = None,
) -> Iterator[Sample]:
    """Replace the open turn of each sample by `num_samples` answered dialogues, unconditioned.

    Equal responses to one prompt are kept once each time they were drawn: their number is the
    model's own probability.
    """
    openings = [sample.dialogues[0].turns for sample in samples]
    prompts = [
        Prompt(images=sample.images, turns=turns)
        for sample, turns in zip(samples, openings, strict=True)
    ]
    answers = assistant.generate(
        prompts,
        num_samples=num_samples,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        seed=seed,
        on_batch=on_batch,
    )
    for sample, turns, responses in zip(samples, openings, answers, strict=True):
        dialogues = tuple(
            Dialogue((*turns[:-1], Turn(user=turns[-1].user, model=response)))
            for response in responses
        )
        yield replace(sample, dialogues=dialogues)


def annotate_group(annotator: Annotator, sample: Sample) -> Sample | Reject:
    """Judge the last response of every dialogue."""
    try:
        return replace(
            sample,
            dialogues=tuple(_annotated(annotator, sample, d) for d in sample.dialogues),
        )
    except Reject as reject:
        return reject.at(where="annotator", key=sample.id)


def _annotated(annotator: Annotator, sample: Sample, dialogue: Dialogue) -> Dialogue:
    feedback = annotator.annotate(sample, dialogue)
    return Dialogue((*dialogue.turns[:-1], replace(dialogue.turns[-1], feedback=feedback)))
