"""The fused LoRA layer is peft's, and leaves to peft what is not plain."""

from __future__ import annotations

import copy

import pytest
import torch
from modeling_helpers import LORA, randomize_adapter, tiny_lvlm
from peft.tuners.lora import Linear

from dress.modeling.low_rank import FusedLinear, LowRankSum


def layers(dropout: float = 0.0) -> tuple[FusedLinear, Linear]:
    model = tiny_lvlm(lora=LORA | {"dropout": dropout}).double()
    randomize_adapter(model)
    fused = next(m for m in model.language.modules() if isinstance(m, FusedLinear))
    plain = copy.deepcopy(fused)
    plain.__class__ = Linear
    for layer in (fused, plain):
        layer.requires_grad_(False)
        for name, parameter in layer.named_parameters():
            parameter.requires_grad_("lora_" in name)
    return fused, plain


def test_outputs_and_gradients_are_those_of_peft() -> None:
    fused, plain = layers()
    x = torch.randn(2, 5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outcomes = []
    for layer in (fused, plain):
        given = x.clone().requires_grad_()
        output = layer(given)
        (output**2).sum().backward()
        own = [p.grad for n, p in sorted(layer.named_parameters()) if "lora_" in n]
        outcomes.append([output.detach(), given.grad, *own])
    for got, wanted in zip(*outcomes, strict=True):
        assert wanted is not None and wanted.abs().sum() > 0
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_gradients_agree_with_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (5, 4), (5,), (2, 4), (5, 2)]
    x, weight, bias, down, up = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    inputs = [tensor.requires_grad_() for tensor in (x, down, up)]
    assert torch.autograd.gradcheck(
        lambda x, down, up: LowRankSum.apply(x, weight, bias, down, up, 0.7), inputs
    )


@pytest.mark.parametrize("how", ["dropout", "disabled", "autocast", "trained base"])
def test_what_is_not_plain_is_left_to_peft(how: str) -> None:
    fused, _ = layers(dropout=0.5 if how == "dropout" else 0.0)
    x = torch.randn(5, 32, dtype=torch.float64)
    assert fused._plain_adapter(x) == (None if how == "dropout" else "default")
    if how == "disabled":
        fused.enable_adapters(False)
    elif how == "trained base":
        fused.base_layer.requires_grad_(True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
        assert fused._plain_adapter(x) is None
    assert (fused.eval()._plain_adapter(x) is not None) == (how in ("dropout", "autocast"))
