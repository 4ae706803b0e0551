"""The model as it was before training: what DPO and PPO must not move away from too far."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dress.modeling.head import Read
from dress.types import TokenBatch


class Reference:
    """Run a model with the weights it had when this was made, in eval mode and without gradients.

    Only what trains is kept twice: with LoRA the adapter as it began, which is the parent model
    because the parent's own adapter is merged; for a model that trains whole, all of it.
    """

    def __init__(self, model: nn.Module) -> None:
        self._start = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def __call__(self, model: nn.Module, batch: TokenBatch, *reads: Read) -> tuple[Tensor, ...]:
        """Give what `model(batch, *reads)` gave then."""
        device = batch.input_ids.device
        self._start = {name: weight.to(device) for name, weight in self._start.items()}
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            return torch.func.functional_call(model, self._start, (batch, *reads))
        finally:
            for module, mode in modes:
                module.training = mode
