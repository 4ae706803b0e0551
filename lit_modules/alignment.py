"""Train any objective: one batch is one optimizer step, divided by one global count."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dress.distributed import gather
from dress.errors import InputError
from dress.modeling.devices import PRECISIONS
from dress.modeling.lvlm import LVLM
from dress.objectives.objective import Objective
from dress.settings import Amount, checked
from dress.types import LossOutput, TokenBatch
from lit_modules import random_state
from lit_modules.parameters import (
    check_state,
    keep_frozen_in_eval,
    parameter_groups,
    trainable_state,
)
from lit_modules.totals import Totals, figures, means, read_many, read_step

CHECKPOINT_KEY = "alignment"
IDS_SHOWN = 16


class NonFiniteStep(RuntimeError):
    """A loss or a gradient is not finite; the parameters are those of the step before."""

    remedy = "lower optimizer.lr or look at these groups"


class AlignmentModule(L.LightningModule):
    """Sum the gradient over micro-batches and ranks and divide it by the count of all of them.

    A batch is a tuple of micro-batches, so how a step is cut up to fit memory changes no number.
    `gradient_clip` bounds the norm of the divided gradient; None leaves it as it is.
    `activation_checkpointing` trades time for memory, and changes no number either.
    """

    @checked
    def __init__(
        self,
        *,
        model: nn.Module,
        objective: Objective,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        gradient_clip: Amount | None = 1.0,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # a checkpoint holds what trains, nothing else
        self.model = model
        self.objective = objective
        self.build_optimizer = optimizer
        self.build_scheduler = scheduler
        self.gradient_clip = gradient_clip
        self.activation_checkpointing = activation_checkpointing
        self.empty_steps = 0
        self.learning_rate = 0.0
        # steps have a random stream of their own, which validation and loaders do not disturb
        self._random_state: dict[str, Any] | None = None
        self._validation: list[Totals] = []

    def configure_optimizers(self) -> Any:
        optimizer = self.build_optimizer(parameter_groups(self))
        if self.build_scheduler is None:
            return optimizer
        scheduler = {"scheduler": self.build_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def train(self, mode: bool = True) -> AlignmentModule:
        super().train(mode)
        if mode:
            keep_frozen_in_eval(self)
        return self

    def on_fit_start(self) -> None:
        # 16-mixed scales the gradients that are clipped; the others cannot convert a frozen batch
        if self.trainer.precision not in PRECISIONS:
            raise InputError(
                f"trainer.precision is {self.trainer.precision}: use {' or '.join(PRECISIONS)} and "
                "choose the type of the weights in the model's YAML"
            )
        self.checkpoint_activations()
        if self._random_state is None:
            torch.manual_seed(torch.initial_seed() + self.global_rank)
            self._random_state = random_state.capture()
        self.train()

    def checkpoint_activations(self) -> None:
        """Where it is asked for, let every model in here do so."""
        models = [part for part in self.modules() if isinstance(part, LVLM)]
        for model in models if self.activation_checkpointing else ():
            model.checkpoint_activations()

    def training_step(self, batch: Sequence[TokenBatch], batch_idx: int) -> None:
        assert self._random_state is not None
        random_state.restore(self._random_state)
        totals = self.update(batch)
        if totals is not None:
            self.show(totals)
        self.log("train/empty_steps", float(self.empty_steps), batch_size=1)
        self._random_state = random_state.capture()

    def loss(self, batch: Any) -> LossOutput:
        return self.objective(self.model, batch)

    def update(self, batch: Sequence[Any]) -> dict[str, float] | None:
        """Make one step of the optimizer on the gradient of all micro-batches and ranks.

        Return the sums over them with `grad_norm`, or None where there was nothing to learn from.
        """
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.zero_grad()
        rows = []
        for index, (micro_batch, weight) in enumerate(self._alike(batch)):
            with self._sync(enabled=index == len(batch) - 1):
                output = self.loss(micro_batch)
                self.manual_backward(output.loss_sum * weight)
            if weight:
                rows.append(figures(output))
        groups = optimizer.param_groups
        gradients = [p.grad for g in groups for p in g["params"] if p.grad is not None]
        own_norm = torch.nn.utils.get_total_norm(gradients)
        if isinstance(own_norm, DTensor):
            own_norm = own_norm.full_tensor()
        totals, norm = read_step(rows, own_norm)
        if not all(map(math.isfinite, (totals["loss"], totals["count"], norm))):
            optimizer.zero_grad()
            raise NonFiniteStep(self._describe(batch, rows, totals["loss"], norm))
        if totals["count"] == 0:
            self.empty_steps += 1
            return None
        return totals | {"grad_norm": self._update(optimizer, gradients, totals, norm)}

    def _update(
        self,
        optimizer: LightningOptimizer,
        gradients: list[Tensor],
        totals: dict[str, float],
        norm: float,
    ) -> float:
        """Divide and clip the gradient and step; return its norm before clipping."""
        # DDP and FSDP have averaged the gradients over ranks
        scale = self.trainer.world_size / totals["count"]
        norm *= scale
        clip = self.gradient_clip
        factor = scale if clip is None or norm <= clip else scale * clip / norm
        torch._foreach_mul_(gradients, factor)
        self.learning_rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        if isinstance(scheduler := self.lr_schedulers(), LRScheduler):
            scheduler.step()
        return norm

    def show(self, totals: dict[str, float], *, norm_of: int = 1) -> None:
        """Log the means of sums; `grad_norm` is a sum over `norm_of` steps."""
        norm = totals.pop("grad_norm") / norm_of
        logged = means(totals, "train")
        self.log("train/loss", logged.pop("train/loss"), prog_bar=True, batch_size=1)
        logged |= {"train/grad_norm": norm, "train/learning_rate": self.learning_rate}
        # `step` is what loggers then use as x; their default counts batches from 0
        self.log_dict(logged | {"step": float(self.global_step)}, batch_size=1)

    def _sync(self, *, enabled: bool) -> contextlib.AbstractContextManager[None]:
        strategy = self.trainer.strategy
        if enabled or not isinstance(strategy, ParallelStrategy):
            return contextlib.nullcontext()
        return strategy.block_backward_sync()

    def _alike(self, batch: Sequence[Any]) -> list[tuple[Any, int]]:
        """Weigh each micro-batch 1; a rank that has too few runs its last one again, weighed 0.

        Ranks that have shares of the weights gather them together.
        """
        most = max(gather(len(batch))) if isinstance(self.model, FSDPModule) else len(batch)
        return [(part, 1) for part in batch] + [(batch[-1], 0)] * (most - len(batch))

    def _describe(
        self, batch: Sequence[Any], rows: Sequence[Totals], loss: float, norm: float
    ) -> str:
        guilty = [b for b, row in zip(batch, rows, strict=True) if not row["loss"].isfinite()]
        ids = [group for micro_batch in guilty or batch for group in micro_batch.group_ids]
        shown = ", ".join(ids[:IDS_SHOWN]) + (", ..." if len(ids) > IDS_SHOWN else "")
        return (
            f"step {self.global_step + 1} is not finite (loss {loss}, gradient norm {norm}) and "
            f"was not applied; its groups on rank {self.global_rank}: {shown}"
        )

    def on_validation_epoch_start(self) -> None:
        self._validation.clear()

    def validation_step(self, batch: Sequence[TokenBatch], batch_idx: int) -> None:
        for micro_batch, weight in self._alike(batch):
            output = self.loss(micro_batch)
            if weight:
                self._validation.append(figures(output))

    def on_validation_epoch_end(self) -> None:
        totals = read_many(self._validation)
        self._validation.clear()
        if not totals.get("count"):
            raise InputError(
                "no validation batch has a supervised token or a pair: check the val split, or "
                "give more data"
            )
        logged = means(totals, "val") | {"step": float(self.global_step)}
        self.log_dict(logged, batch_size=1, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = trainable_state(self, checkpoint["state_dict"])
        checkpoint[CHECKPOINT_KEY] = {
            "empty_steps": self.empty_steps,
            "random_states": gather(self._random_state),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_state(self, checkpoint["state_dict"])
        saved = checkpoint[CHECKPOINT_KEY]
        self.empty_steps = saved["empty_steps"]
        if self.global_rank < len(saved["random_states"]):
            self._random_state = saved["random_states"][self.global_rank]
