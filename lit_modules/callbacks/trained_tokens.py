"""Count the tokens that a run has learned from, so that runs can be compared by what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L

from dress.distributed import place, summed
from dress.types import TokenBatch


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
        is_last = trainer.global_step == trainer.max_steps
        if is_last or (trainer.fit_loop.epoch_loop.total_batch_idx + 1) % every == 0:
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
