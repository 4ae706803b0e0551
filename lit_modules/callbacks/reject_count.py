"""Log how many groups were rejected, and why."""

from __future__ import annotations

import re
from collections import Counter

import lightning as L

from dress.data.rejects import Rejects
from lit_modules.totals import gather


class RejectCount(L.Callback):
    """Log `data/rejects` and `data/rejects/<reason>` over all ranks at every validation."""

    def __init__(self, rejects: Rejects) -> None:
        self.rejects = rejects

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        reasons: Counter[str] = sum(gather(self.rejects.by_reason), Counter())
        figures = {"data/rejects": float(reasons.total())}
        for reason, count in reasons.items():
            name = re.sub(r"\W+", "_", reason)
            figures[f"data/rejects/{name}"] = float(count)
        pl_module.log_dict(figures, batch_size=1)
