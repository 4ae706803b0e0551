"""The model as it was before training: what DPO and PPO must not move away from too far."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from dress.errors import InputError
from dress.files import replacing
from dress.modeling.head import Read
from dress.types import TokenBatch

FILE = "log_probs.safetensors"


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
        sharded = isinstance(model, FSDPModule)
        try:
            if not sharded:
                return torch.func.functional_call(model, self._start, (batch, *reads))
            self._exchange(model)
            return model(batch, *reads)
        finally:
            if sharded:
                self._exchange(model)
            for module, mode in modes:
                module.training = mode

    def _exchange(self, model: nn.Module) -> None:
        """Swap this rank's shares of the weights with those of the start."""
        cast(FSDPModule, model).reshard()  # what is gathered would not follow
        for name, parameter in model.named_parameters():
            if name in self._start:
                now, start = (cast(DTensor, t).to_local() for t in (parameter, self._start[name]))
                kept = now.clone()
                now.copy_(start)
                start.copy_(kept)


class ReferenceLogProbs:
    """One row of log-probabilities of supervised tokens for each group, by the group's id.

    A row holds those of the group's sequences one behind the other, as a batch does.
    """

    def __init__(self, rows: Mapping[str, Float[Tensor, " token"]] | None = None) -> None:
        self._rows = dict(rows or {})

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, batch: TokenBatch, log_probs: Float[Tensor, " target"]) -> None:
        """Keep what belongs to each group of a batch; raise InputError at an id seen before."""
        groups = batch.sequence_group[batch.target_seq]
        for number, name in enumerate(batch.group_ids):
            if name in self._rows:
                raise InputError(
                    f"two groups are called {name}: objective.reference=cached needs ids of their "
                    "own; use objective.reference=step."
                )
            self._rows[name] = log_probs[groups == number].cpu()

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " target"]:
        """Return the kept log-probabilities of a batch's targets, in its order."""
        rows = [self._rows[name] for name in batch.group_ids]
        kept = torch.cat([torch.empty(0), *rows]) if rows else torch.empty(0)
        assert len(kept) == len(batch.target_node), "the groups were encoded otherwise before"
        return kept.to(batch.input_ids.device)

    def save(self, folder: Path) -> None:
        with replacing(folder / FILE) as temporary:
            save_file(self._rows, temporary)

    @classmethod
    def load(cls, folder: Path) -> ReferenceLogProbs:
        return cls(load_file(folder / FILE))
