"""What training consumes: how fast, how many tokens, and which groups were rejected."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from jaxtyping import Int
from torch import Tensor

from dress.data.rejects import Rejects
from dress.distributed import place, summed
from dress.types import TokenBatch


class Throughput(L.Callback):
    """Log rates over all ranks once per `log_every_n_steps`; only then wait for the device.

    `tokens_per_second` counts the tokens computed, `logical_tokens_per_second` what they stand for
    if no sequence shared its prefix. Pauses for validation and saving count nowhere.
    """

    def __init__(self) -> None:
        self._start_window()
        self._ended: float | None = None
        self._started = 0.0

    def _start_window(self) -> None:
        self._waited = self._worked = 0.0
        self._samples = 0
        self._tokens: list[Int[Tensor, " two"]] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._started = time.perf_counter()
        if self._ended is not None:
            self._waited += self._started - self._ended

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Sequence[TokenBatch],
        batch_idx: int,
    ) -> None:
        self._ended = time.perf_counter()
        self._worked += self._ended - self._started
        self._samples += sum(micro_batch.num_sequences for micro_batch in batch)
        self._tokens.extend(count_tokens(micro_batch) for micro_batch in batch)
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (trainer.fit_loop.epoch_loop.total_batch_idx + 1) % every == 0:
            self._log(pl_module)
            self._start_window()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._ended = None

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._ended = None

    def _log(self, pl_module: L.LightningModule) -> None:
        seconds = self._waited + self._worked
        tokens, logical = torch.stack(self._tokens).sum(0).tolist()
        rates = {
            "train/tokens_per_second": tokens / seconds,
            "train/logical_tokens_per_second": logical / seconds,
            "train/samples_per_second": self._samples / seconds,
        }
        pl_module.log_dict(rates, batch_size=1, sync_dist=True, reduce_fx="sum")
        stall = self._waited / seconds
        pl_module.log("train/stall_fraction", stall, batch_size=1, sync_dist=True)


def count_tokens(batch: TokenBatch) -> Int[Tensor, " two"]:
    """Count the tokens that are not padding, and those of all sequences written out in full."""
    here = torch.arange(1, batch.input_ids.shape[1] + 1, device=batch.subtree_end.device)
    padding = (batch.position_ids == 0) & (batch.subtree_end == here)
    row, last = batch.sequence_end // len(here), batch.sequence_end[:, None] % len(here)
    # of a sequence: what does not lie behind its last token, and is continued up to it at least
    logical = ((here <= last + 1) & (batch.subtree_end[row] > last)).sum()
    return torch.stack([(~padding).sum(), logical])


class TrainedTokens(L.Callback):
    """Log the supervised tokens of all sequences so far, of all ranks; a resumed run goes on."""

    def __init__(self) -> None:
        self.count = 0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Sequence[TokenBatch],
        batch_idx: int,
    ) -> None:
        self.count += sum(micro_batch.target_node.numel() for micro_batch in batch)
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        is_last = trainer.global_step == trainer.max_steps
        may_be_last = batches % trainer.val_check_interval == 0  # a validation may stop training
        if is_last or may_be_last or batches % every == 0:
            pl_module.log(
                "train/trained_tokens",
                float(self.count),
                batch_size=1,
                sync_dist=True,
                reduce_fx="sum",
            )

    def state_dict(self) -> dict[str, Any]:
        return {"count": summed([self.count])[0]}  # every rank saves, rank 0 writes

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count = state_dict["count"] if place()[0] == 0 else 0


class RejectedGroups(L.Callback):
    """Log the counts (of all ranks) once per `log_every_n_steps` and with each validation."""

    def __init__(self, *, rejects: Rejects) -> None:
        self.rejects = rejects

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (trainer.fit_loop.epoch_loop.total_batch_idx + 1) % every == 0:
            self._log(pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log(pl_module)

    def _log(self, pl_module: L.LightningModule) -> None:
        pl_module.log_dict(self.rejects.metrics(), batch_size=1)
