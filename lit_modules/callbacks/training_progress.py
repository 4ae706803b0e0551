"""Show the steps of a training run with its latest loss."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import lightning as L

from dress.progress import Bar


class TrainingProgress(L.Callback):
    """Count optimizer steps on the first rank; a resumed run starts at the step it resumes from.

    `title` says what is trained.
    """

    def __init__(self, *, title: str) -> None:
        self.title = title
        self._shown: Bar | None = None
        self._step = 0
        self._closing = ExitStack()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self._step = 0
            self._shown = self._closing.enter_context(
                Bar(f"training {self.title}", trainer.max_steps)
            )
            self._show(trainer)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        # reading the losses waits for the device
        self._show(trainer, with_losses=trainer.global_step % every == 0)

    def _show(self, trainer: L.Trainer, *, with_losses: bool = False) -> None:
        if self._shown is not None:
            note = losses(trainer) if with_losses else None
            self._shown.update(trainer.global_step - self._step, note=note)
            self._step = trainer.global_step

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._closing.close()
        self._shown = None


def losses(trainer: L.Trainer) -> str:
    found = {name: trainer.callback_metrics.get(f"{name}/loss") for name in ("train", "val")}
    return ", ".join(f"{n} loss {float(v):.3f}" for n, v in found.items() if v is not None)
