"""Sharing prefixes and packing rows change neither the loss nor a gradient (float64)."""

from __future__ import annotations

import pytest
import torch
from small import (
    GPT2,
    LLAMA,
    count_of,
    feedback_samples,
    make_assistant,
    make_collator,
    plain_condition,
    with_an_earlier_turn,
)
from torch import Tensor
from torch.nn import functional as F

from dress.assistant import Assistant
from dress.chat.encoders import CritiqueEncoder
from dress.modeling.language import token_embedding
from dress.objectives.conditional_lm import ConditionalLM
from dress.types import EncodedGroup

SHORT = feedback_samples(3, responses=3)
SAMPLES = [*SHORT, with_an_earlier_turn(SHORT[0])]
LAYOUTS = [
    {"share_prefixes": share, "rows_per_batch": rows, "row_tokens": tokens}
    for share in (True, False)
    for rows in (None, 1)
    for tokens in ((None, 400) if share else (None,))
]


def gradients(assistant: Assistant) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in assistant.model.named_parameters() if p.grad is not None}
    assistant.model.zero_grad()
    return found


def prepared(language: dict) -> tuple[Assistant, list[EncodedGroup]]:
    assistant = make_assistant(SAMPLES, language=language)
    assistant.model.double().eval()
    encoder = CritiqueEncoder(
        processor=assistant.processor, condition=plain_condition(), seed=0, loss_turns="all"
    )
    return assistant, [encoder(sample, epoch=0) for sample in SAMPLES]


def plain_loss(assistant: Assistant, groups: list[EncodedGroup]) -> tuple[Tensor, int]:
    """Run each sequence alone through the bare tower, projector and language model."""
    model, losses, count = assistant.model, [], 0
    for group in groups:
        for sequence in group.sequences:
            ids, mask = torch.from_numpy(sequence.input_ids), torch.from_numpy(sequence.loss_mask)
            embeds = token_embedding(model.language)(ids)
            pixels = torch.stack([group.pixels[name] for name in sequence.images])
            features = model.projector(model.vision(pixels)).flatten(0, 1)
            places = (ids == model.image_token_id).nonzero().squeeze(1)
            embeds = embeds.index_copy(0, places, features)
            logits = model.language(inputs_embeds=embeds[None], use_cache=False).logits[0, :-1]
            kept = mask[1:]
            losses.append(F.cross_entropy(logits[kept], ids[1:][kept], reduction="sum"))
            count += int(kept.sum())
    return torch.stack(losses).sum(), count


# Llama's RMS norm computes in float32 even inside a float64 model.
@pytest.mark.parametrize(
    ("language", "tolerance"), [(GPT2, 1e-10), (LLAMA, 2e-5)], ids=["gpt2", "llama"]
)
def test_every_layout_gives_the_loss_of_sequences_alone(language: dict, tolerance: float) -> None:
    torch.set_num_threads(1)
    assistant, groups = prepared(language)
    expected, count = plain_loss(assistant, groups)
    expected.backward()
    expected_gradients = gradients(assistant)
    sizes = set()
    for layout in LAYOUTS:
        batches = make_collator(assistant, **layout)(groups)
        total = torch.zeros((), dtype=torch.float64)
        for batch in batches:
            output = ConditionalLM()(assistant.model, batch)
            output.loss_sum.backward()
            total += output.loss_sum.detach()
        assert count_of(batches) == count
        torch.testing.assert_close(total, expected.detach(), rtol=tolerance, atol=0)
        found = gradients(assistant)
        assert found.keys() == expected_gradients.keys()
        for name, gradient in expected_gradients.items():
            scale = max(1.0, gradient.abs().max().item())
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=tolerance * scale)
        sizes.add(sum(batch.input_ids.numel() for batch in batches))
    assert len(sizes) > 2  # the layouts really differ
