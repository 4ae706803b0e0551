"""Follow how good answers are, and whether the condition controls it, while training goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import lightning as L


class ConditionRatings(L.Callback):
    """Log `val/rating/<condition>/<quantity>` at every validation.

    `rate` answers fixed prompts and rates the answers; it runs on the first rank only.
    """

    def __init__(self, rate: Callable[[], Mapping[str, float]]) -> None:
        self.rate = rate

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        figures = {f"val/rating/{name}": value for name, value in self.rate().items()}
        pl_module.log_dict(figures, batch_size=1, rank_zero_only=True)
