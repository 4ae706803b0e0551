"""What is watched during training: progress, throughput, answers to fixed prompts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import lightning as L

from dress.artifact import Building
from dress.assistant import Assistant
from dress.data.shard_set import ShardSet
from dress.jobs.fixed_prompts import condition_ratings, sample_table
from dress.jobs.job import Job
from dress.jobs.progress import Bar
from lit_modules.callbacks.progress import TrainingProgress
from lit_modules.callbacks.throughput import Throughput
from lit_modules.callbacks.trained_tokens import TrainedTokens


def callbacks(
    job: Job, building: Building, assistant: Assistant, data: ShardSet
) -> Sequence[L.Callback]:
    settings = job.cfg.callbacks
    chosen: list[L.Callback] = []
    if settings.progress:
        chosen.append(TrainingProgress(counter=partial(Bar, f"training {job.cfg.name}")))
    # what is drawn has a length only afterwards: PolicyModule counts it
    if job.cfg.objective.requires != "prompts":
        chosen.append(TrainedTokens())
        if settings.throughput:
            chosen.append(Throughput())
    if settings.rated_prompts and job.cfg.objective.requires == "feedback":
        chosen.extend(condition_ratings(job, assistant, data))
    if settings.table_rows and assistant.model.scalar_head is None:
        chosen.append(sample_table(job, building, assistant, data))
    return chosen
