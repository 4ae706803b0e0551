"""job=plan: what a training would take in memory and arithmetic, before anything is built."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from omegaconf import DictConfig

from dress.artifact import Artifact
from dress.errors import InputError
from dress.files import read_json, write_text
from dress.jobs.contradictions import FSDP
from dress.jobs.job import Job
from dress.settings import AboveZero, Positive, Share

PLAN = "plan.json"
READ = ("model", "objective", "optimizer", "module", "plan")  # nodes that decide the figures


@dataclass(frozen=True, kw_only=True)
class Planning:
    """For which GPU and rows the plan is made (conf/plan); how many GPUs the trainer says."""

    gpu: Literal["h200", "h100", "a100", "l40s", "24gb"] | None
    lengths: Sequence[Positive]
    mfu: AboveZero
    spare: Share
    gpus: Mapping[str, Mapping[str, float]]
    shapes: Sequence[Mapping[str, Any]]


def run(job: Job) -> Artifact:
    planning = Planning(**job.node("plan"))
    check_device(planning, job.cfg.trainer)
    from dress.jobs.planned import Devices, planned, shaped, told  # transformers: seconds

    spec = shaped(job.node("model"), planning.shapes)
    devices = Devices(planning.gpu or "this machine", **figures(planning, job.cfg.trainer))
    nodes = {name: job.node(name) for name in READ} | {
        "model": spec | {"trainable": spec["trainable"][job.cfg.stage]},
        "rows_per_batch": job.cfg.datamodule.rows_per_batch,
        "precision": job.cfg.trainer.precision,
        "devices": vars(devices),
    }
    with job.building(
        kind="plan", nodes=nodes, parents={}, name=f"plan_{job.cfg.name}"
    ) as building:
        if not building.reused:
            found = planned(job, nodes, devices=devices, lengths=planning.lengths)
            write_text(building.path / PLAN, json.dumps(found, indent=2))
    assert building.artifact is not None
    print(told(read_json(building.artifact.path / PLAN)), flush=True)
    return building.artifact


def check_device(planning: Planning, trainer: DictConfig) -> None:
    """Refuse a GPU beside the precision and the attention of a CPU, and the other way round."""
    accelerator = trainer.accelerator
    if planning.gpu is None and (accelerator != "cpu" or trainer.devices > 1):
        raise InputError(
            "plan.gpu is null, which stands for the memory of this machine with trainer=cpu and "
            "one device: give trainer=gpu plan.gpu=h200 or another."
        )
    if planning.gpu is not None and accelerator == "cpu":
        raise InputError(
            f"plan.gpu is {planning.gpu} and trainer.accelerator cpu: give trainer=gpu, whose "
            "precision and attention are then planned, or plan.gpu=null."
        )


def figures(planning: Planning, trainer: DictConfig) -> dict[str, Any]:
    """Return memory in bytes, what of it may be used, and the FLOP/s that are reached."""
    if planning.gpu is None:
        memory, flops = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
    else:
        gpu = planning.gpus[planning.gpu]
        memory, flops = int(gpu["gib"] * 2**30), gpu["tflops"] * 1e12 * planning.mfu
    return {
        "count": trainer.devices,
        "strategy": FSDP if trainer.strategy == FSDP else "ddp",
        "memory": memory,
        "usable": int(memory * (1 - planning.spare)),
        "flops": flops,
    }
