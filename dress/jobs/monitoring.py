"""What is watched during training: progress, throughput, a table of fixed prompts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

import lightning as L

from dress.artifact import Artifact, Building
from dress.assistant import Assistant, Prompt
from dress.data.shard_index import ShardIndex
from dress.jobs.job import Job
from dress.jobs.progress import Bar
from dress.types import Sample, Turn
from lit_modules.callbacks.progress import TrainingProgress
from lit_modules.callbacks.sample_table import SampleTable, TablePrompt
from lit_modules.callbacks.throughput import Throughput


def callbacks(
    job: Job, building: Building, assistant: Assistant, data: Artifact
) -> Sequence[L.Callback]:
    settings = job.cfg.callbacks
    chosen: list[L.Callback] = []
    if settings.progress:
        chosen.append(TrainingProgress(counter=partial(Bar, f"training {job.cfg.name}")))
    if settings.throughput:
        chosen.append(Throughput())
    if settings.table_rows:
        chosen.append(sample_table(job, building, assistant, data))
    return chosen


def sample_table(job: Job, building: Building, assistant: Assistant, data: Artifact) -> SampleTable:
    """Ask the first validation prompts under the target condition, validation after validation."""
    target = str(job.cfg.condition.target) if job.cfg.objective.requires == "feedback" else "none"
    critique = assistant.condition.target(target)
    index = ShardIndex.open(data.path / "validation")
    rows = int(min(job.cfg.callbacks.table_rows, len(index)))
    shown = (
        sample
        for sample in index.read_groups(0, 0, int(index.groups[0]))
        if isinstance(sample, Sample) and sample.images  # the table is one of pictures
    )
    prompts = [
        table_prompt(sample, condition=target, critique=critique) for sample in islice(shown, rows)
    ]
    decoding = ("max_new_tokens", "temperature", "batch_size")
    settings: dict[str, Any] = {name: job.cfg.generation[name] for name in decoding}

    def respond(prompts: Sequence[TablePrompt]) -> list[str]:
        asked = [
            Prompt(images=(p.image,), turns=(Turn(user=p.question),), condition=p.critique)
            for p in prompts
        ]
        return [responses[0] for responses in assistant.generate(asked, **settings)]

    return SampleTable(prompts=prompts, respond=respond, directory=building.path, max_rows=rows)


def table_prompt(sample: Sample, *, condition: str, critique: str) -> TablePrompt:
    """The opening question of a record, with its reference or first response as the truth."""
    turn = sample.dialogues[0].turns[0]
    return TablePrompt(
        image=sample.images[0],
        question=turn.user,
        condition=condition,
        critique=critique,
        truth=str(sample.annotations.get("reference") or turn.model or ""),
    )
