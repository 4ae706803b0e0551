"""What is watched during training: loggers, throughput, a table of fixed prompts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger, WandbLogger

from dress.artifact import HISTORY, Artifact, Building
from dress.assistant import Assistant, Prompt
from dress.data.rejects import Reject
from dress.data.shard_index import ShardIndex
from dress.errors import InputError
from dress.jobs.job import Job
from dress.types import Sample, Turn
from lit_modules.callbacks.sample_table import SampleTable, TablePrompt
from lit_modules.callbacks.throughput import Throughput
from lit_modules.logger import JsonLinesLogger


def loggers(job: Job, building: Building) -> list[Logger]:
    """The local history always; W&B online where a key is in the environment, else offline."""
    chosen: list[Logger] = [JsonLinesLogger(path=building.path / HISTORY)]
    settings = job.cfg.logger
    if settings.wandb:
        if settings.mode not in ("auto", "online", "offline"):
            raise InputError(f"logger.mode is {settings.mode!r}: choose auto, online or offline.")
        has_key = bool(os.environ.get("WANDB_API_KEY"))
        offline = settings.mode == "offline" or (settings.mode == "auto" and not has_key)
        chosen.append(
            WandbLogger(
                name=building.path.name.removesuffix(".partial"),
                project=settings.project,
                save_dir=str(building.scratch if offline else building.path),
                offline=offline,
            )
        )
    return chosen


def callbacks(
    job: Job, building: Building, assistant: Assistant, data: Artifact
) -> Sequence[L.Callback]:
    settings = job.cfg.callbacks
    chosen: list[L.Callback] = []
    if settings.throughput:
        chosen.append(Throughput())
    if settings.table_rows:
        chosen.append(sample_table(job, building, assistant, data))
    return chosen


def sample_table(
    job: Job, building: Building, assistant: Assistant, data: Artifact
) -> SampleTable:
    """Ask the first validation prompts under the target condition, validation after validation."""
    target = str(job.cfg.condition.target) if job.cfg.objective.requires == "feedback" else "none"
    condition = assistant.condition.target(target)
    index = ShardIndex.open(data.path / "validation")
    rows = int(min(job.cfg.callbacks.table_rows, len(index)))
    prompts = [
        table_prompt(sample, condition)
        for sample in index.read_groups(0, 0, min(rows, int(index.groups[0])))
        if not isinstance(sample, Reject)
    ]
    settings: dict[str, Any] = job.node("generation")

    def respond(prompts: Sequence[TablePrompt]) -> list[str]:
        asked = [
            Prompt(images=(p.image,), turns=(Turn(user=p.question),), condition=p.condition)
            for p in prompts
        ]
        return [responses[0] for responses in assistant.generate(asked, **settings)]

    return SampleTable(prompts=prompts, respond=respond, directory=building.path)


def table_prompt(sample: Sample, condition: str) -> TablePrompt:
    """The opening question of a record, with its reference or first response as the truth."""
    turn = sample.dialogues[0].turns[0]
    truth = str(sample.annotations.get("reference") or turn.model or "")
    return TablePrompt(
        image=sample.images[0], question=turn.user, condition=condition, truth=truth
    )
