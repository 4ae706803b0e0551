"""What a model is asked in a rollout is, token by token, what it saw before the response."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import feedback_samples, make_assistant, plain_condition, with_an_earlier_turn

from dress.chat.encoders import CritiqueEncoder, InstructionEncoder
from dress.records import Prompt
from dress.types import Sample, Turn

SHORT = feedback_samples(6)
SAMPLES = [*SHORT, *map(with_an_earlier_turn, SHORT[:3])]
ASSISTANT = make_assistant(SAMPLES)
CONDITION = plain_condition()


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.id)
@pytest.mark.parametrize("conditioned", [True, False])
def test_rollout_prompt_is_the_training_prompt(sample: Sample, conditioned: bool) -> None:
    if conditioned:
        encoder = CritiqueEncoder(
            processor=ASSISTANT.processor, condition=CONDITION, seed=0, loss_turns="last"
        )
    else:
        encoder = InstructionEncoder(processor=ASSISTANT.processor, loss_turns="last")
    trained = encoder(sample, epoch=0).sequences
    prompts = [
        Prompt(
            images=sample.images,
            turns=(*dialogue.turns[:-1], Turn(dialogue.turns[-1].user)),
            condition=CONDITION.text(dialogue.turns[-1].feedback) if conditioned else "",
        )
        for dialogue in sample.dialogues
    ]
    encoded, pixels = ASSISTANT._encode(prompts)
    asked = list(encoded.values())
    assert len(trained) == len(asked) == len(sample.dialogues)
    for sequence, prompt, dialogue in zip(trained, asked, sample.dialogues, strict=True):
        first = int(np.flatnonzero(sequence.loss_mask)[0])
        assert prompt.input_ids.tolist() == sequence.input_ids[:first].tolist()
        assert prompt.images == sequence.images and set(prompt.images) <= set(pixels)
        # behind the prompt stand the response and its end token, all of it supervised
        assert sequence.loss_mask[first:].all()
        assert sequence.input_ids[-1] == ASSISTANT.processor.eos_token_id
        assert ASSISTANT.processor.decode(sequence.input_ids[first:]) == dialogue.turns[-1].model


def test_padding_on_the_left_hides_nothing_and_points_to_the_right_patches() -> None:
    prompts = [
        Prompt(images=s.images, turns=(*s.dialogues[0].turns[:-1], Turn("And now?")))
        for s in (SAMPLES[0], SAMPLES[-1])
    ]
    by_number, pixels = ASSISTANT._encode(prompts)
    encoded = list(by_number.values())
    batch = ASSISTANT.collate(encoded, pixels)
    patches = ASSISTANT.processor.num_image_tokens
    for row, sequence in enumerate(encoded):
        shown = batch.attention_mask[row]
        assert batch.input_ids[row][shown].tolist() == sequence.input_ids.tolist()
        slots = batch.image_slot[row][batch.image_slot[row] >= 0]
        assert slots.tolist() == list(range(row * patches, (row + 1) * patches))
        assert pixels[sequence.images[0]].equal(batch.pixels[row])


def test_generated_tokens_are_counted_up_to_their_end() -> None:
    end, pad = ASSISTANT.model.eos_token_id, ASSISTANT.model.pad_token_id
    before = ASSISTANT.generated_tokens
    ASSISTANT._texts(torch.tensor([[5, end, pad], [5, 6, 7], [end, end, end]]))
    assert ASSISTANT.generated_tokens - before == 2 + 3 + 1
