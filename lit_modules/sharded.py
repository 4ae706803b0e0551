"""Lightning's part in training a model that rests in shares (dress/modeling/sharding.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning_utilities import apply_to_collection
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from dress.distributed import share
from lit_modules.muon import MuonAdamW
from lit_modules.parameters import load_trainable, trainable_state
from lit_modules.share_files import save_shares, with_shares


class ShardedStrategy(DDPStrategy):
    """Processes as under DDP, around a model that gathers and reduces for itself.

    Each rank saves and reads its shares of a state (share_files.py), and any strategy goes on from
    the state of another.
    """

    def setup(self, trainer: L.Trainer) -> None:
        super(DDPStrategy, self).setup(trainer)

    def _setup_model(self, model: Any) -> Any:
        return model

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the shares themselves, of which tied ones are one object under several names."""
        module = self.lightning_module
        assert module is not None
        return dict(trainable_state(module, module.state_dict(keep_vars=True)))

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        small = save_shares(checkpoint, path=Path(filepath))
        super().save_checkpoint(small, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """Leave a whole state on the disk, of which each rank then reads its share."""
        state = torch.load(checkpoint_path, map_location="cpu", mmap=True, weights_only=True)
        assert self.lightning_module is not None
        weights = self.lightning_module.parameters()
        mesh = next(weight.device_mesh for weight in weights if isinstance(weight, DTensor))
        return with_shares(state, path=Path(checkpoint_path), mesh=mesh)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        load_trainable(self.lightning_module, checkpoint["state_dict"])

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            if isinstance(optimizer, MuonAdamW):
                parts = optimizer.parts.items()
                optimizer.load_state_dict({n: shares_of(part, state[n]) for n, part in parts})
            else:
                optimizer.load_state_dict(shares_of(optimizer, state))


def shares_of(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """Cut what a state dict says of each weight, by number, as the weight is cut."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    shares = {
        number: apply_to_collection(own, Tensor, share, weights[number])
        for number, own in state["state"].items()
    }
    return {**state, "state": shares}
