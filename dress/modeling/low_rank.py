"""LoRA layers in as few passes over memory as their arithmetic needs.

peft adds the adapter's output to the layer's in operations of their own, each of which reads and
writes all tokens; here the sums are part of the matrix products, forward and backward.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def fuse_adapter(language: PeftModel) -> None:
    for module in language.modules():
        if type(module) is Linear and isinstance(module.base_layer, nn.Linear):
            module.__class__ = FusedLinear


class FusedLinear(Linear):
    """A LoRA layer around a frozen nn.Linear; whatever is not plain is left to peft."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Tensor) -> Tensor:
        name = self._plain_adapter(x)
        if name is None or args or kwargs:
            return super().forward(x, *args, **kwargs)
        base, down, up = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
        flat = x.flatten(0, -2)
        output = LowRankSum.apply(flat, base.weight, base.bias, down, up, self.scaling[name])
        return output.view(*x.shape[:-1], output.shape[-1])

    def _plain_adapter(self, x: Tensor) -> str | None:
        """Name the one adapter that is on, if nothing but its two matrices is at work."""
        names = self.active_adapters
        if self.disable_adapters or self.merged or len(names) != 1 or names[0] not in self.lora_A:
            return None
        dropout = self.lora_dropout[names[0]]
        drops = isinstance(dropout, nn.Dropout) and dropout.training and dropout.p > 0
        weights = (self.base_layer.weight, self.lora_A[names[0]].weight)
        frozen = not any(p.requires_grad for p in self.base_layer.parameters())
        same = all(weight.dtype == x.dtype for weight in weights)
        special = names[0] in self.lora_variant or self.lora_B[names[0]].bias is not None
        cast = torch.is_autocast_enabled(x.device.type)
        return names[0] if frozen and same and not (drops or special or cast) else None


class LowRankSum(torch.autograd.Function):
    """x W^T + bias + scale (x A^T) B^T for frozen W and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "token in"],
        weight: Float[Tensor, "out in"],
        bias: Float[Tensor, " out"] | None,
        down: Float[Tensor, "rank in"],
        up: Float[Tensor, "out rank"],
        scale: float,
    ) -> Float[Tensor, "token out"]:
        inner = x @ down.t()
        ctx.scale = scale
        ctx.save_for_backward(x, weight, down, up, inner)
        return nn.functional.linear(x, weight, bias).addmm_(inner, up.t(), alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "token out"]) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, down, up, inner = ctx.saved_tensors
        of_inner = (gradient @ up).mul_(ctx.scale)
        of_x = (gradient @ weight).addmm_(of_inner, down) if ctx.needs_input_grad[0] else None
        of_up = (gradient.t() @ inner).mul_(ctx.scale)
        return of_x, None, None, of_inner.t() @ x, of_up, None
