"""Show in every logger what the data lost: rejected groups by reason, and reads tried again."""

from __future__ import annotations

from typing import Any

import lightning as L

from dress.data.rejects import Rejects


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
