"""Prompts are read once and rows that end leave; the answers are those of the library."""

from __future__ import annotations

import pytest
import torch
from modeling_helpers import GPT2, LLAMA, LORA, randomize_adapter, tiny_lvlm
from test_generate import PIXELS, PROMPTS, left_padded
from torch import Tensor

from dress.errors import InputError
from dress.modeling.decoding import sampler
from dress.modeling.lvlm import LVLM

SAMPLING = {"temperature": 1.0, "top_p": 0.95, "num_return_sequences": 8}
MISTRAL = LLAMA | {"model_type": "mistral", "sliding_window": 4, "num_key_value_heads": 2}
HYBRID = LLAMA | {  # every other layer is recurrent
    "model_type": "qwen3_next",
    "num_key_value_heads": 2,
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "mlp_only_layers": [0, 1],
}


def drawn_by_one_number(probs: Tensor, num_samples: int) -> Tensor:
    """Count the tokens whose cumulated probability one uniform number exceeds."""
    assert num_samples == 1
    uniform = torch.rand(len(probs))
    return (probs.cumsum(-1) <= uniform[:, None]).sum(-1, keepdim=True)


def sampled_by_transformers(model: LVLM, prompts: dict[str, Tensor], new: int) -> Tensor:
    """Sample K answers the plain way: prompts repeated first, the library's own cache.

    Only the draw is not its own: torch.multinomial takes a number for each token of the vocabulary.
    """
    embeds = model.embed(prompts["input_ids"], prompts["image_slot"], PIXELS)
    torch.manual_seed(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "multinomial", drawn_by_one_number)
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


def test_tokens_are_drawn_as_often_as_their_probabilities_say() -> None:
    torch.manual_seed(0)
    logits, rows = torch.randn(1, 50) * 2, 200_000
    choose = sampler(rows=rows, temperature=0.7, top_p=0.9)
    tokens = choose(logits.expand(rows, -1), torch.arange(rows))
    probs = (logits[0] / 0.7).softmax(-1)
    order = probs.argsort(descending=True)
    kept = order[: int((probs[order].cumsum(0) < 0.9).sum()) + 1]
    expected = torch.zeros(50).index_copy(0, kept, probs[kept] / probs[kept].sum()) * rows
    drawn = tokens.bincount(minlength=50)
    assert drawn[expected == 0].sum() == 0
    chi_square = ((drawn - expected)[kept] ** 2 / expected[kept]).sum()
    assert chi_square < 2 * len(kept)


def test_a_row_draws_the_same_whichever_others_go_on() -> None:
    logits = torch.randn(6, 40)
    choose = sampler(rows=6, temperature=1.0, top_p=1.0)
    torch.manual_seed(0)
    everyone = choose(logits, torch.arange(6))
    torch.manual_seed(0)
    few = torch.tensor([1, 4])
    assert choose(logits[few], few).tolist() == everyone[few].tolist()


@pytest.mark.parametrize("number", [0.0, 1 - 2**-24])
def test_the_least_and_the_largest_number_draw_a_token_that_can_be(
    number: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", lambda rows, device: torch.full((rows,), number))
    logits = torch.randn(300, 64)
    logits[:, :8] = logits[:, -8:] = -torch.inf
    tokens = sampler(rows=300, temperature=1.0, top_p=1.0)(logits, torch.arange(300))
    assert tokens.min() >= 8 and tokens.max() < 56


def frequent_end(model: LVLM, tokens: Tensor) -> None:
    """Let the commonest token end a row, so that rows end at different steps."""
    model.eos_token_id = int(tokens[tokens != model.pad_token_id].bincount().argmax())


def lengths(model: LVLM, tokens: Tensor) -> list[int]:
    """Count the tokens of each row up to its end token."""
    end = model.eos_token_id
    return [row.index(end) + 1 if end in row else len(row) for row in tokens.tolist()]


def batches(model: LVLM) -> list[tuple[int, int]]:
    """Return a list that will hold the rows and tokens of every run of the LM's first layer."""
    seen: list[tuple[int, int]] = []
    layer = model.language.get_decoder().layers[0]
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[:2])))
    return seen


@pytest.mark.parametrize(
    ("config", "lora"),
    [(LLAMA, None), (LLAMA, LORA), (GPT2, None), (MISTRAL, None), (MISTRAL, LORA), (HYBRID, None)],
    ids=lambda value: value and value.get("model_type", "lora"),
)
def test_samples_equal_those_of_the_library(config: dict, lora: dict | None) -> None:
    model = tiny_lvlm(config, lora=lora).double().eval()
    if lora:
        randomize_adapter(model)
    prompts, new = left_padded(PROMPTS), 12
    frequent_end(model, sampled_by_transformers(model, prompts, new))
    expected = sampled_by_transformers(model, prompts, new)
    tokens = model.generate(**prompts, pixels=PIXELS, max_new_tokens=new, seed=3, **SAMPLING)
    assert tokens.tolist() == expected.tolist()
    assert len(set(lengths(model, tokens))) > 2


def test_a_prompt_is_read_once_and_rows_that_ended_leave() -> None:
    model, prompts = tiny_lvlm().eval(), left_padded(PROMPTS)
    free = model.generate(**prompts, pixels=PIXELS, max_new_tokens=12, seed=0, **SAMPLING)
    frequent_end(model, free)
    seen = batches(model)
    tokens = model.generate(**prompts, pixels=PIXELS, max_new_tokens=12, seed=0, **SAMPLING)
    ends = lengths(model, tokens)
    assert seen[0] == (3, prompts["input_ids"].shape[1])
    going_on = [sum(end > step for end in ends) for step in range(1, max(ends))]
    for (rows, new), needed in zip(seen[1:], going_on, strict=True):
        assert new == 1 and needed <= rows < max(needed / 0.75, needed + 1)
    assert seen[-1][0] < 24


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "rwkv", "hidden_size": 32, "num_hidden_layers": 2},
        {"model_type": "openai-gpt", "n_embd": 32, "n_layer": 1, "n_head": 2},
    ],
)
def test_an_lm_without_keys_and_values_is_refused(config: dict) -> None:
    model = tiny_lvlm(config, attention="eager")
    with pytest.raises(InputError, match=f"a {config['model_type']} keeps no keys and values"):
        model.generate(**left_padded(PROMPTS), pixels=PIXELS, max_new_tokens=2)
