"""Keep `last.ckpt`, from which the same command resumes.

Lightning's ModelCheckpoint also saves after a non-finite step and in the middle of an update, and
its files are written through the system's temporary folder, which may be small or elsewhere;
OnExceptionCheckpoint deletes its file at the end.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from dress.errors import InputError
from dress.files import no_space, replacing
from dress.interrupts import Interrupted, StopSignals
from dress.settings import Positive, checked
from lit_modules.alignment import CHECKPOINT_KEY, NonFiniteStep
from lit_modules.callbacks.best_weights import BestWeights
from lit_modules.loggers.json_lines import JsonLinesLogger
from lit_modules.share_files import SHARES, remove_other_shares, shares_reader, with_shares

FILE_NAME = "last.ckpt"
FIGURES, STOPPED = "figures", "stopped"
BEGUN = {  # progress of a validation in its first batch: Lightning begins it again on resuming
    "total": {"ready": 1, "started": 1, "processed": 0, "completed": 0},
    "current": {"ready": 0, "started": 0, "processed": 0, "completed": 0},
    "is_last_batch": False,
}

logger = logging.getLogger(__name__)


class _BesideTheFile(TorchCheckpointIO):
    """Write a state beside the file that it then replaces; read one whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)
        remove_other_shares(checkpoint, path=Path(path))

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: Any = None
    ) -> dict[str, Any]:
        state = super().load_checkpoint(Path(path), map_location, weights_only)
        return with_shares(state, path=Path(path))


class TrainState(Checkpoint):
    """Save in `scratch` every `every_n_steps`, at the end, when told to stop, and at an error.

    A step is whole until the optimizer begins, so what is saved is always a state between steps.
    `figures` are those of the state that training resumed from, validations left out.
    """

    @checked
    def __init__(self, *, scratch: str | os.PathLike[str], every_n_steps: Positive) -> None:
        self.path = Path(scratch) / FILE_NAME
        self.every_n_steps = every_n_steps
        self._signals = StopSignals()
        self._saved_step: int | None = None
        self._whole = False
        self.figures: dict[str, float] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        trainer.strategy.checkpoint_io = _BesideTheFile()

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # not those of a validation, which may still be due at this step
        figures = _logged(trainer)
        checkpoint[FIGURES] = {n: v for n, v in figures.items() if not n.startswith("val/")}
        checkpoint[STOPPED] = trainer.should_stop
        if _validation_is_due(trainer):
            checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"] = BEGUN

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.figures = checkpoint.get(FIGURES, {})
        trainer.should_stop = checkpoint.get(STOPPED, False)

    def resume_path(self) -> Path | None:
        """Return what to give `trainer.fit(ckpt_path=...)`."""
        return self.path if self.path.is_file() else None

    @contextmanager
    def explaining_errors(self) -> Iterator[None]:
        """Check the state there is; tell of a user's mistake in the block how training goes on."""
        self.check()
        try:
            yield
        except NonFiniteStep as error:
            raise InputError(
                f"{error}; {error.remedy} (the last state that was saved is kept)."
            ) from error
        except InputError as error:
            if self.resume_path() is None:
                raise
            fault = str(error).removesuffix(".")
            raise InputError(f"{fault}; the same command goes on from the last state.") from error

    def check(self) -> None:
        """Raise InputError where there is a state that cannot be, or must not be, resumed from."""
        if (path := self.resume_path()) is None:
            return
        try:
            # mapped, so that only the structure is read; tensors and plain data, nothing else
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            sound = state.keys() >= {"state_dict", "optimizer_states", "loops", CHECKPOINT_KEY}
            if SHARES in state:
                shares_reader(state, path=path).read_metadata()
        except Exception:  # a damaged or malicious file may make the reader raise anything
            sound = False
        if not sound:
            raise InputError(
                f"{path} is damaged or holds more than a training state: remove it to start again."
            )

    @property
    def stop_requested(self) -> bool:
        """Tell of a signal too late for any step to stop after it."""
        return self._signals.received

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._signals.install()
        self._whole = True
        if trainer.ckpt_path:
            self._saved_step = trainer.global_step
        for logger in trainer.loggers:
            if isinstance(logger, JsonLinesLogger):
                logger.log_resume(trainer.global_step)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        self._whole = False

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._whole = True
        step = trainer.global_step
        stop = trainer.strategy.reduce_boolean_decision(self._signals.received, all=False)
        every = self.every_n_steps  # a batch may hold several steps
        if stop or step // every > (self._saved_step or 0) // every:
            self._save(trainer)
        if stop:
            raise Interrupted(f"interrupted at step {step}; the same command resumes")

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        # ranks may have different numbers of batches, so that they cannot agree here; nothing is
        # saved, because a resumed validation would see only its remaining batches
        if trainer.world_size == 1 and self._signals.received:
            raise Interrupted(
                f"interrupted in the validation at step {trainer.global_step}; the same command "
                f"resumes from step {self._saved_step or 0}"
            )

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._signals.uninstall()
        # one rank alone cannot save, nor can any on a full disk; a non-finite step is better
        # resumed from further back
        alone = trainer.world_size == 1 and trainer.training and self._whole
        alone = alone and trainer.global_step > 0 and no_space(exception) is None
        if alone and not isinstance(exception, NonFiniteStep | Interrupted):
            self._save_if_possible(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # what comes now, the last validation and the saving of the weights, may still fail
        if self._saved_step != trainer.global_step:
            self._save_if_possible(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._signals.uninstall()

    def _save(self, trainer: L.Trainer) -> None:
        try:
            trainer.save_checkpoint(self.path)
        except OSError:
            trainer.strategy.barrier()  # where the other ranks wait for the one that writes
            raise
        self._saved_step = trainer.global_step

    def _save_if_possible(self, trainer: L.Trainer) -> None:
        try:
            self._save(trainer)
        except OSError as error:
            step = trainer.global_step
            logger.warning("the state of step %s was not saved (%s)", step, error.strerror)


def final_figures(
    trainer: L.Trainer, module: L.LightningModule, datamodule: L.LightningDataModule
) -> dict[str, float]:
    """Return what was logged last, with a validation of the final weights or of the best ones."""
    found = _logged(trainer)
    batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
    if not any(n.startswith("val/") for n in found) or batches % trainer.val_check_interval:
        trainer.validate(module, datamodule, verbose=False)  # forgets those of training
        found |= _logged(trainer)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, BestWeights):
            found |= callback.restore(module)
    return found


def _validation_is_due(trainer: L.Trainer) -> bool:
    """Tell whether the step that just ended is to be followed by a validation."""
    loop = trainer.fit_loop.epoch_loop
    progress: Any = loop.batch_progress.current
    fetcher: Any = trainer.fit_loop._data_fetcher
    ending: bool = progress.completed < progress.processed  # not yet counted as completed
    return ending and loop._should_check_val_fx(fetcher)


def _logged(trainer: L.Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}
