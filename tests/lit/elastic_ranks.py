"""Train on shards of every awkward kind with any number of ranks, each a real process."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.plugins.environments import TorchElasticEnvironment

from datamodules.streaming import ShardDataModule, Source
from dress.chat.encoders import InstructionEncoder
from dress.data.shard_writer import ShardWriter
from dress.files import append_line
from dress.jobs.processes import join
from dress.objectives.conditional_lm import ConditionalLM
from dress.types import Sample
from lit_modules.alignment import AlignmentModule
from lit_modules.callbacks.train_state import TrainState
from tests.integration.small import (
    GPT2,
    answered_samples,
    feedback_samples,
    make_assistant,
    make_collator,
)
from tests.lit.toys import make_trainer
from tests.processes import run_ranks

GROUPS_PER_STEP = 4
SAMPLES = feedback_samples(6) + answered_samples()


def awkward(samples: list[Sample]) -> list[Sample]:
    """Follow each record by one without an image and one without a response, a reject."""
    without = [replace(s, id=f"{s.id}-text", images=()) for s in samples]
    silent = [
        replace(
            s,
            id=f"{s.id}-silent",
            dialogues=tuple(
                replace(d, turns=(replace(d.turns[0], model=None, feedback=None),))
                for d in s.dialogues
            ),
        )
        for s in samples
    ]
    return [sample for three in zip(samples, without, silent, strict=True) for sample in three]


def write_data(folder: Path) -> None:
    """Write a source of uneven shards, the last of them empty, and a source of one group."""
    for name, samples in (("main", awkward(SAMPLES)), ("single", SAMPLES[-1:])):
        for split in ("train", "validation"):
            with ShardWriter(folder / name / split, max_groups=17) as writer:
                for sample in samples if split == "train" else samples[:5]:
                    writer.write(sample)
    index = folder / "main" / "train" / "index.json"
    content = json.loads(index.read_text())
    empty = index.parent / "shard-empty.tar"
    empty.write_bytes(bytes(10240))
    (index.parent / "shard-empty.offsets.npy").write_bytes(
        offsets_of_an_empty_shard(index.parent / "shard-000000.offsets.npy")
    )
    entry = {"file": empty.name, "groups": 0, "bytes": 10240, "sha256": ""}
    index.write_text(json.dumps(content | {"shards": [*content["shards"], entry]}))


def offsets_of_an_empty_shard(like: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.load(like)[:1])
    return buffer.getvalue()


class Recording(AlignmentModule):
    """Note the groups and the loss of every step in a file per rank."""

    log_file: Path
    world: int

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.ids = [name for part in batch for name in part.group_ids]
        self.step_loss: float | None = None
        super().training_step(batch, batch_idx)
        append_line(self.log_file, {"ids": self.ids, "loss": self.step_loss, "world": self.world})

    def _update(self, optimizer: Any, gradients: Any, totals: Any, norm: float) -> float:
        self.step_loss = totals["loss"] / totals["count"]
        return super()._update(optimizer, gradients, totals, norm)


def train(
    folder: Path, data: Path, until: int, *, workers: int = 0, rank: int = 0, world: int = 1
) -> dict[str, float]:
    """Go on to a step from the state in a folder, if there is one; return the last figures."""
    torch.set_num_threads(1)
    assistant = make_assistant(SAMPLES, language=GPT2)
    encoder = InstructionEncoder(processor=assistant.processor)
    datamodule = ShardDataModule(
        directory=data / "main",
        encoder=encoder,
        collator=make_collator(assistant),
        groups_per_step=GROUPS_PER_STEP,
        seed=0,
        window=8,
        num_workers=workers,
        max_rejects=10**6,
        others=[Source(data / "single", 0.25, encoder)],
    )
    module = Recording(
        model=assistant.model.double(),
        objective=ConditionalLM(),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-3),
    )
    module.log_file = folder / f"log.{rank}"
    module.world = world
    state = TrainState(scratch=folder, every_n_steps=1)
    several: dict[str, Any] = {"plugins": [TorchElasticEnvironment()], "strategy": "ddp"}
    trainer: L.Trainer = make_trainer(
        devices=world,
        max_steps=until,
        max_epochs=-1,
        use_distributed_sampler=False,
        callbacks=[state],
        enable_checkpointing=True,
        **(several if world > 1 else {}),
    )
    trainer.fit(module, datamodule, ckpt_path=state.resume_path(), weights_only=True)
    figures = trainer.validate(module, datamodule, verbose=False)[0]
    rejects = {"groups_seen": datamodule.rejects.groups_seen, "rejects": datamodule.rejects.count}
    return {"val": figures["val/loss"], **rejects}


def one_rank(folder: Path, data: Path, until: int, workers: int, world: int) -> None:
    rank = int(os.environ["RANK"])
    join(f"file://{folder / f'meeting-{world}'}")
    figures = train(folder, data, until, workers=workers, rank=rank, world=world)
    (folder / f"figures-{world}.{rank}").write_text(json.dumps(figures))


def on_ranks(folder: Path, data: Path, until: int, *, workers: int, world: int) -> list[Any]:
    """Run so many processes to the end and return their figures; one that hangs is an error."""
    given = [str(value) for value in (folder, data, until, workers, world)]
    run_ranks(Path(__file__), given, world=world)
    return [json.loads((folder / f"figures-{world}.{r}").read_text()) for r in range(world)]


if __name__ == "__main__":
    one_rank(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
