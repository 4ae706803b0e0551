"""Keep the weights of the best validation: the artifact then holds them, not the last ones."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Literal

import lightning as L
from safetensors.torch import load_file, save_file

from dress.distributed import whole
from dress.errors import InputError
from dress.files import replacing
from dress.settings import checked
from lit_modules.parameters import check_state, load_trainable, trainable_state


class BestWeights(L.Callback):
    """Write what trains to `scratch` whenever a validation is the best so far.

    `monitor` is a figure that validations log; `mode` says whether the lowest (min) or the highest
    (max) is the best. Of equal validations the first counts.
    """

    @checked
    def __init__(
        self,
        *,
        scratch: str | os.PathLike[str],
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
    ) -> None:
        self.folder, self.monitor = Path(scratch), monitor
        self.sign = 1.0 if mode == "min" else -1.0
        self.step: int | None = None
        self.figures: dict[str, float] = {}
        self._resumable: int | None = None  # the step that the last saved training state refers to

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        logged = trainer.callback_metrics.items()
        figures = {name: float(value) for name, value in logged if name.startswith("val/")}
        if self.monitor not in figures:
            raise InputError(
                f"callbacks.best_weights.monitor is {self.monitor}, which no validation logs: give "
                f"{' or '.join(sorted(figures))}."
            )
        if trainer.strategy.reduce_boolean_decision(self._is_best(figures), all=False):
            self.step, self.figures = trainer.global_step, figures
            self._write(trainer, pl_module)

    def restore(self, module: L.LightningModule) -> dict[str, float]:
        """Put the best weights back; return the figures of their validation and `best/step`."""
        if self.step is None:
            return {}
        state = load_file(self._file(self.step))
        check_state(module, state)
        load_trainable(module, state)
        return self.figures | {"best/step": float(self.step)}

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._resumable = self.step

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "figures": self.figures}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step, self.figures = state_dict["step"], state_dict["figures"]
        self._resumable = self.step

    def _is_best(self, figures: dict[str, float]) -> bool:
        value = figures[self.monitor]
        if self.step is None:
            return math.isfinite(value)
        return self.sign * value < self.sign * self.figures[self.monitor]

    def _file(self, step: int | None) -> Path:
        return self.folder / f"best-{step}.safetensors"

    def _write(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write the weights; remove older ones that no run can resume from."""
        state = trainable_state(module, trainer.strategy.lightning_module_state_dict())
        copies = {}
        for name, tensor in state.items():
            joined = whole(tensor)  # of the shares that all ranks have
            if trainer.is_global_zero:  # tied weights are copied apart
                copies[name] = joined.clone().contiguous()
        file = self._file(self.step)
        try:
            if trainer.is_global_zero:
                with replacing(file) as temporary:
                    save_file(copies, temporary)
                for other in self.folder.glob("best-*.safetensors"):
                    if other not in (file, self._file(self._resumable)):
                        other.unlink()
        finally:
            trainer.strategy.barrier()
