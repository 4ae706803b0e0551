"""A prompt's keys and values are computed once and grown in place; answers stay what they were."""

from __future__ import annotations

import pytest
import torch
from modeling_helpers import GPT2, LLAMA, LORA, randomize_adapter, tiny_lvlm
from test_generate import PIXELS, PROMPTS, SAMPLING, left_padded
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from dress.modeling import lvlm
from dress.modeling.kv_cache import ROOM, GrowingLayer
from dress.modeling.lvlm import LVLM

MISTRAL = LLAMA | {"model_type": "mistral", "sliding_window": 4, "num_key_value_heads": 2}


def sampled_by_transformers(model: LVLM, prompts: dict[str, Tensor], new: int) -> Tensor:
    """Sample K answers the plain way: prompts repeated first, the library's own cache."""
    embeds = model.embed(prompts["input_ids"], prompts["image_slot"], PIXELS.double())
    torch.manual_seed(3)
    return model.language.generate(
        inputs_embeds=embeds,
        attention_mask=prompts["attention_mask"].long(),
        max_new_tokens=new,
        do_sample=True,
        top_k=0,
        eos_token_id=model.eos_token_id,
        pad_token_id=model.pad_token_id,
        **SAMPLING,
    )


@pytest.mark.parametrize("config", [LLAMA, GPT2, MISTRAL], ids=lambda c: c["model_type"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["plain", "lora"])
def test_samples_equal_those_of_the_library(config: dict, lora: dict | None) -> None:
    model = tiny_lvlm(config, lora=lora).double().eval()
    if lora:
        randomize_adapter(model)
    prompts, new = left_padded(PROMPTS), 12
    model.eos_token_id = 39
    expected = sampled_by_transformers(model, prompts, new)
    tokens = model.generate(
        **prompts, pixels=PIXELS.double(), max_new_tokens=new, seed=3, **SAMPLING
    )
    assert tokens.tolist() == expected.tolist()
    assert len({tuple(row) for row in tokens.tolist()}) > len(PROMPTS)  # answers differ


def test_a_prompt_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_lvlm().eval()
    rows: list[tuple[int, int]] = []
    layer = model.language.get_decoder().layers[0]
    layer.register_forward_pre_hook(lambda _, inputs: rows.append(tuple(inputs[0].shape[:2])))
    prompts = left_padded(PROMPTS)
    model.generate(**prompts, pixels=PIXELS, max_new_tokens=3, seed=0, **SAMPLING)
    longest = prompts["input_ids"].shape[1]
    assert rows[0] == (3, longest - 1) and set(rows[1:]) == {(9, 1)}


def test_it_holds_what_the_library_s_layer_holds() -> None:
    ours, theirs = GrowingLayer(), DynamicLayer()
    random = torch.Generator().manual_seed(0)
    buffers = set()

    def both(number: int, rows: int) -> None:
        keys, values = torch.rand(2, rows, 2, number, 3, generator=random)
        for held, expected in zip(
            ours.update(keys, values), theirs.update(keys, values), strict=True
        ):
            assert torch.equal(held, expected)
        buffers.add(ours.keys.data_ptr())

    both(5, rows=2)
    for _ in range(ROOM):
        both(1, rows=2)
    assert len(buffers) == 1  # nothing was copied
    both(1, rows=2)
    assert len(buffers) == 2
    for layer in (ours, theirs):
        layer.batch_repeat_interleave(3)
    both(1, rows=6)
    for layer in (ours, theirs):
        layer.crop(-4)
    both(2, rows=6)
    for layer in (ours, theirs):
        layer.reorder_cache(torch.tensor([5, 0, 1, 1, 2, 3]))
    both(ROOM + 9, rows=6)


def test_an_lm_with_another_cache_samples_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lvlm, "growing_cache", lambda _: None)
    model, prompts = tiny_lvlm().double().eval(), left_padded(PROMPTS)
    expected = sampled_by_transformers(model, prompts, 6)
    tokens = model.generate(**prompts, pixels=PIXELS.double(), max_new_tokens=6, seed=3, **SAMPLING)
    assert tokens.tolist() == expected.tolist()
