"""A few samples are learnt by heart, through the image or the condition, with the end token."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from small import answered_samples, make_assistant, make_collator, plain_condition

from dress.assistant import Assistant
from dress.chat.encoders import CritiqueEncoder, Encoder, InstructionEncoder
from dress.objectives.conditional_lm import ConditionalLM
from dress.records import BANK, Prompt
from dress.types import ASPECTS, Dialogue, Feedback, Judgement, Sample, Turn

STEPS = 150


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")


def overfit(assistant: Assistant, encoder: Encoder, samples: Sequence[Sample]) -> float:
    """Return the mean loss per token at which training stopped."""
    model, objective = assistant.model.train(), ConditionalLM()
    collator = make_collator(assistant)
    (batch,) = collator([encoder(sample, epoch=0) for sample in samples])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    loss = float("inf")
    for _ in range(STEPS):
        optimizer.zero_grad()
        output = objective(model, batch)
        (output.loss_sum / output.count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss = float(output.loss_sum.detach() / output.count)
        if loss < 0.01:
            break
    model.eval()
    return loss


def stops(assistant: Assistant, prompts: Sequence[Prompt]) -> list[bool]:
    """Whether greedy decoding ends with the end token well before its limit."""
    encoded, pixels = assistant._encode(prompts)
    batch = assistant.collate(list(encoded.values()), pixels)
    tokens = assistant.model.generate(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        image_slot=batch.image_slot,
        pixels=batch.pixels,
        max_new_tokens=100,
    )
    return [assistant.processor.eos_token_id in row for row in tokens[:, :99].tolist()]


def test_answers_are_learnt_through_the_image_and_end() -> None:
    samples = answered_samples()
    answers = [sample.dialogues[0].turns[0].model for sample in samples]
    assert len(set(answers)) == 4
    assistant = make_assistant(samples)
    encoder = InstructionEncoder(processor=assistant.processor)
    assert overfit(assistant, encoder, samples) < 0.05
    prompts = [Prompt(s.images, (Turn(s.dialogues[0].turns[0].user),)) for s in samples]
    assert assistant.generate(prompts, max_new_tokens=100) == [[answer] for answer in answers]
    assert stops(assistant, prompts) == [True] * 4


def level(rating: int) -> Feedback:
    return Feedback({a: Judgement(rating, BANK[a][rating]) for a in ASPECTS})


def test_answers_are_learnt_through_the_condition_and_end() -> None:
    picture = answered_samples()[0].images
    question = "How many circles are there?"
    good, bad = "There are two circles.", "Nine."
    dialogues = (
        Dialogue((Turn(question, good, level(4)),)),
        Dialogue((Turn(question, bad, level(1)),)),
    )
    samples = [Sample("c", picture, dialogues)]
    assistant = make_assistant(samples)
    encoder = CritiqueEncoder(
        processor=assistant.processor, condition=plain_condition(), seed=0, loss_turns="all"
    )
    assert overfit(assistant, encoder, samples) < 0.05
    for target, answer in (("best", good), ("worst", bad)):
        assert assistant.respond(picture[0], question, condition=target) == answer
        prompt = Prompt(picture, (Turn(question),), plain_condition().target(target))
        assert stops(assistant, [prompt]) == [True]


def test_revisions_are_learnt_through_the_feedback_turn() -> None:
    picture = answered_samples()[0].images
    question, first = "How many circles are there?", "Nine."
    revised = {"Count once more.": "There are two circles.", "Say it kindly.": "Nine, my friend."}
    dialogues = tuple(
        Dialogue((Turn(question, first, level(1)), Turn(advice, response, level(4))))
        for advice, response in revised.items()
    )
    samples = [Sample("r", picture, dialogues)]
    assistant = make_assistant(samples)
    encoder = CritiqueEncoder(
        processor=assistant.processor, condition=plain_condition(), seed=0, loss_turns="improved"
    )
    assert overfit(assistant, encoder, samples) < 0.05
    best = plain_condition().target("best")
    prompts = [Prompt(picture, (Turn(question, first), Turn(advice)), best) for advice in revised]
    assert assistant.generate(prompts, max_new_tokens=100) == [[r] for r in revised.values()]
