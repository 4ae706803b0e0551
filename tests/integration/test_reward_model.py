"""A reward model's scores on token trees, its learning, and its way to disk and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import GPT2, LLAMA, feedback_samples, make_collator, model_config, texts_of
from torch import Tensor

from dress.assistant import Assistant
from dress.chat.judging import RewardEncoder
from dress.errors import InputError
from dress.loading import assemble
from dress.modeling.build import build_model
from dress.modeling.checkpoint import load_weights, save_weights
from dress.modeling.language import token_embedding
from dress.modeling.lvlm import LVLM
from dress.modeling.tokenizer import train_tokenizer
from dress.modeling.trainable import set_trainable
from dress.objectives.reward import PairwiseReward, reward_loss
from dress.records import Prompt
from dress.types import EncodedGroup, Turn

SAMPLES = feedback_samples(4, responses=3)
LORA = {"r": 2, "alpha": 4, "dropout": 0.0, "target_modules": "all-linear"}
LAYOUTS: list[dict[str, Any]] = [
    {},
    {"rows_per_batch": 1},
    {"row_tokens": 1200},
    {"share_prefixes": False, "rows_per_batch": 2},
]
TOKENIZER = train_tokenizer(texts_of(SAMPLES), vocab_size=400)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")


def reward_model(language: dict[str, Any] = LLAMA, *, seed: int = 0, **changes: Any) -> Assistant:
    torch.manual_seed(seed)
    config = model_config(language)
    config["model"] |= {"scalar_head": True, "max_length": 500}
    config["model"]["language"] |= changes
    model = build_model(config["model"], tokenizer=TOKENIZER)
    return assemble(config, model=model, tokenizer=TOKENIZER)


def encoded(assistant: Assistant) -> list[EncodedGroup]:
    encoder = RewardEncoder(processor=assistant.processor, seed=0, facts=False)
    return [encoder(sample, epoch=0) for sample in SAMPLES]


def score_alone(model: LVLM, group: EncodedGroup, number: int) -> Tensor:
    """Run one sequence by itself and apply the head to the last state by hand."""
    sequence = group.sequences[number]
    ids = torch.from_numpy(sequence.input_ids)
    pixels = torch.stack([group.pixels[name] for name in sequence.images])
    embeds = token_embedding(model.language)(ids)
    places = (ids == model.image_token_id).nonzero().squeeze(1)
    features = model.projector(model.vision(pixels)).flatten(0, 1)
    embeds = embeds.index_copy(0, places, features)
    base: Any = model.language
    states = base.transformer(inputs_embeds=embeds[None], use_cache=False).last_hidden_state
    head = model.scalar_head
    assert head is not None
    return states[0, -1] @ head.weight[0] + head.bias[0]


def with_a_prefix(group: EncodedGroup) -> EncodedGroup:
    """Add the first sequence without its end: its last token is inside another's path."""
    first = group.sequences[0]
    cut = replace(first, input_ids=first.input_ids[:-3], loss_mask=first.loss_mask[:-3])
    return replace(group, sequences=(*group.sequences, cut))


def test_every_layout_gives_the_scores_of_sequences_alone() -> None:
    assistant = reward_model(GPT2)
    model = assistant.model.double().eval()
    assert model.scalar_head is not None
    torch.nn.init.normal_(model.scalar_head.bias)
    groups = [with_a_prefix(group) for group in encoded(assistant) if group.pairs]
    alone = {g.id: [score_alone(model, g, n) for n in range(len(g.sequences))] for g in groups}
    pairs = [(alone[g.id][c], alone[g.id][r]) for g in groups for c, r in g.pairs]
    losses = reward_loss(*(torch.stack(part) for part in zip(*pairs, strict=True)), centring=1e-3)
    for layout in LAYOUTS:
        total, scored = 0.0, 0
        for batch in make_collator(assistant, **layout)(groups):
            places: dict[int, int] = {}
            for score, group in zip(
                model.scores(batch), batch.sequence_group.tolist(), strict=True
            ):
                number = places.setdefault(group, 0)
                places[group] += 1
                expected = alone[batch.group_ids[group]][number]
                torch.testing.assert_close(score, expected, rtol=1e-10, atol=1e-12)
                scored += 1
            total += PairwiseReward()(model, batch).loss_sum.item()
        assert scored == sum(map(len, alone.values()))
        assert total == pytest.approx(losses.sum().item(), rel=1e-10)


def test_a_few_pairs_are_learnt_by_heart() -> None:
    assistant = reward_model()
    model = assistant.model.train()
    set_trainable(model, ["vision", "projector", "language"])
    (batch,) = make_collator(assistant)(encoded(assistant))
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=2e-3, weight_decay=0.0
    )
    margins = []
    for _ in range(40):
        optimizer.zero_grad()
        output = PairwiseReward()(model, batch)
        (output.loss_sum / output.count).backward()
        optimizer.step()
        margins.append(float(output.metrics["rewards/margin"] / output.count))
        if margins[-1] > 3:
            break
    assert float(output.metrics["rewards/accuracy"]) == float(output.count) >= 4
    assert margins[-1] > 2 > abs(margins[0])


def test_the_head_trains_and_the_heads_of_the_lm_rests() -> None:
    model = reward_model().model
    report = set_trainable(model, ["projector"])
    assert model.scalar_head is not None and model.scalar_head.weight.requires_grad
    assert {c.part: c.trainable for c in report.counts}["scalar_head"] == 64 + 1
    set_trainable(model, ["language"])
    output = model.language.get_output_embeddings()
    assert output is not None and not output.weight.requires_grad
    assert token_embedding(model.language).weight.requires_grad
    tied = reward_model(GPT2).model
    set_trainable(tied, ["language"])
    assert token_embedding(tied.language).weight.requires_grad


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "lora"])
def test_saved_and_loaded_it_gives_the_same_scores(tmp_path: Path, lora: Any) -> None:
    assistant = reward_model(lora=lora)
    model = assistant.model.eval()
    set_trainable(model, ["lora" if lora else "language"])
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(torch.randn_like(parameter) * 0.05)
    (batch,) = make_collator(assistant)(encoded(assistant))
    save_weights(model, tmp_path, base={})
    other = reward_model(seed=1, lora=lora).model.eval()
    with torch.no_grad():
        assert not torch.allclose(other.scores(batch), model.scores(batch), atol=1e-2)
        load_weights(other, tmp_path, base={})
        assert torch.equal(other.scores(batch), model.scores(batch))
        assert torch.equal(other.values(batch), model.values(batch))  # as a value model
        assert torch.equal(other(batch), model(batch))


def test_it_gives_no_answers() -> None:
    prompt = Prompt(SAMPLES[0].images, (Turn("What is there?"),))
    with pytest.raises(InputError, match="is a reward model"):
        reward_model().generate([prompt])


def test_a_policy_cannot_be_loaded_from_it(tmp_path: Path) -> None:
    save_weights(reward_model().model, tmp_path, base={})
    policy = build_model(model_config(LLAMA)["model"], tokenizer=TOKENIZER)
    with pytest.raises(InputError, match="holds a reward model"):
        load_weights(policy, tmp_path, base={})
