"""Show what the model answers to a few fixed prompts, validation after validation."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import WandbLogger

from dress.chat.images import decode_image, thumbnail
from dress.files import append_line, read_lines, write_text
from dress.modeling.sharding import gathered
from lit_modules.callbacks.sample_page import COLUMNS, render_page

MAX_SIDE = 192  # pixels of a thumbnail


@dataclass(frozen=True)
class TablePrompt:
    image: bytes  # an encoded file
    question: str
    condition: str  # its name, such as best
    critique: str  # the text it puts before the response
    truth: str

    def texts(self, response: str) -> tuple[str, ...]:
        """Return what stands in the columns after the image."""
        return self.question, self.condition, self.critique, response, self.truth


class SampleTable(L.Callback):
    """Write `samples.html`, which needs no other file, and `samples.jsonl`; add to a W&B table.

    `respond` gets all prompts at once and runs on the first rank only.
    """

    def __init__(
        self,
        *,
        prompts: Sequence[TablePrompt],
        respond: Callable[[Sequence[TablePrompt]], list[str]],
        directory: str | os.PathLike[str],
        max_rows: int = 16,
    ) -> None:
        self.prompts = tuple(prompts)[:max_rows]
        self.respond = respond
        self.directory = Path(directory)
        self._thumbnails = [thumbnail(prompt.image, MAX_SIDE) for prompt in self.prompts]
        self._wandb_table: Any = None
        self._wandb_images: list[Any] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            with gathered(pl_module.get_submodule("model")):
                self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero or not self.prompts:
            return
        responses = self.respond(self.prompts)
        assert len(responses) == len(self.prompts)
        history = self.directory / "samples.jsonl"
        for row, (prompt, response) in enumerate(zip(self.prompts, responses, strict=True)):
            values = (trainer.global_step, row, *prompt.texts(response))
            record = dict(zip(COLUMNS, values, strict=True))
            append_line(history, record)
        page = render_page(read_lines(history), self._thumbnails)
        write_text(self.directory / "samples.html", page)
        self._log_to_wandb(trainer, responses)

    def _log_to_wandb(self, trainer: L.Trainer, responses: Sequence[str]) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                self._add_rows(trainer.global_step, responses)
                logger.experiment.log(
                    {"val/samples": self._wandb_table, "trainer/global_step": trainer.global_step}
                )

    def _add_rows(self, step: int, responses: Sequence[str]) -> None:
        import wandb  # slow to import, and only needed with its logger

        if self._wandb_table is None:
            self._wandb_table = wandb.Table(columns=list(COLUMNS), log_mode="INCREMENTAL")
            # made once: W&B keeps a file of each in the system's temporary folder
            pictures = map(decode_image, self._thumbnails)
            self._wandb_images = [wandb.Image(picture, file_type="jpg") for picture in pictures]
        for prompt, image, response in zip(
            self.prompts, self._wandb_images, responses, strict=True
        ):
            self._wandb_table.add_data(step, image, *prompt.texts(response))
