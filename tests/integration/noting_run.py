"""Run a job as run.py does and note each step's groups and loss: `noting_run.py FILE ARGUMENTS`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

from dress.files import append_line
from lit_modules import alignment

ROOT = Path(__file__).resolve().parents[2]


def note_steps(file: Path) -> None:
    step, figures = alignment.AlignmentModule.training_step, alignment.read_step
    losses: list[str] = []

    def read_step(*arguments: Any) -> Any:
        totals, norm = figures(*arguments)
        losses.append(float(totals["loss"]).hex())
        return totals, norm

    def training_step(self: alignment.AlignmentModule, batch: Any, batch_idx: int) -> None:
        number = self.global_step
        step(self, batch, batch_idx)
        ids = [name for part in batch for name in part.group_ids]
        append_line(file, {"step": number, "ids": ids, "loss": losses.pop()})

    alignment.AlignmentModule.training_step = training_step
    alignment.read_step = read_step


if __name__ == "__main__":
    note_steps(Path(sys.argv[1]))
    sys.argv = ["run.py", *sys.argv[2:]]
    sys.path.insert(0, str(ROOT))
    runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
