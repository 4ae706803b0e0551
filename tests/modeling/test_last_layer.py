"""Running the last layer where it is read changes neither logits nor gradients."""

from __future__ import annotations

import pytest
import torch
from modeling_helpers import GPT2, LLAMA, LORA, gradients, randomize_adapter, tiny_lvlm

from dress.modeling.head import gathered_head
from dress.modeling.layers import only_at, tokenwise_parts

IDS = torch.randint(4, 40, (2, 7), generator=torch.Generator().manual_seed(0))
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1, "num_key_value_heads": 2}
MIXTRAL = LLAMA | EXPERTS | {"model_type": "mixtral"}
QWEN3 = LLAMA | {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 8}


CONFIGS = {"gpt2": GPT2, "llama": LLAMA, "qwen3": QWEN3}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("nodes", [[3, 5, 6, 13], [0, 2, 2, 0, 0], []], ids=str)
def test_the_same_logits_and_gradients(config: dict, lora: dict | None, nodes: list[int]) -> None:
    model = tiny_lvlm(config, lora=lora).double().eval()
    if lora:
        randomize_adapter(model)
    language, read = model.language, torch.tensor(nodes, dtype=torch.long)
    weight = torch.randn(len(nodes), 40, generator=torch.Generator().manual_seed(1)).double()
    outcomes = []
    for trimmed in (True, False):
        handles = only_at(language, read) if trimmed else torch.enable_grad()
        with handles, gathered_head(language, read):
            logits = language(input_ids=IDS, use_cache=False).logits[0]
        (logits * weight).sum().backward()
        outcomes.append((logits.detach(), gradients(model)))
        model.zero_grad()
    (logits, got), (expected, wanted) = outcomes
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    for name, gradient in wanted.items():
        scale = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(
            got.get(name, torch.zeros_like(gradient)), gradient, rtol=0, atol=1e-6 * scale
        )


def test_what_is_trimmed() -> None:
    assert len(tokenwise_parts(tiny_lvlm(LLAMA).language)) == 3
    assert len(tokenwise_parts(tiny_lvlm(GPT2).language)) == 1  # q, k and v are one layer there
    assert len(tokenwise_parts(tiny_lvlm(MIXTRAL).language)) == 3


def test_hooks_do_not_stay() -> None:
    language = tiny_lvlm(LLAMA).language.eval()
    before = language(input_ids=IDS, use_cache=False).logits
    with pytest.raises(RuntimeError, match="stop"), only_at(language, torch.tensor([1])):
        raise RuntimeError("stop")
    torch.testing.assert_close(language(input_ids=IDS, use_cache=False).logits, before)
