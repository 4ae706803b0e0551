"""Write the history of a run as JSON lines, the form that outlives any tracking service."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from dress.artifact import HISTORY
from dress.files import append_line

logger = logging.getLogger(__name__)


class JsonLinesLogger(Logger):
    """Append `{"step", "time", metrics}` per call to `metrics.jsonl` in the artifact's folder.

    Hyper-parameters are left to the artifact.
    """

    def __init__(self, *, directory: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(directory) / HISTORY

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def version(self) -> int:
        return 0

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        return

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        bad = sorted(name for name, value in metrics.items() if not math.isfinite(value))
        if bad:
            logger.warning("step %s: not written because not finite: %s", step, ", ".join(bad))
        finite = {name: value for name, value in metrics.items() if name not in bad}
        self._append({"step": step, "time": round(time.time(), 3), **finite})

    @rank_zero_only
    def log_resume(self, step: int) -> None:
        """Mark where lines of an interrupted run end; some of them may repeat after the mark."""
        if self.path.exists():
            self._append({"resumed_at": step, "time": round(time.time(), 3)})

    def _append(self, record: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self.path, record)
