"""job=plan: what a training would take in memory and arithmetic, before anything is built.

Training itself asks how many rows fit where `datamodule.rows_per_batch` is auto.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from dress.artifact import Artifact
from dress.errors import InputError
from dress.files import read_json, write_text
from dress.jobs.contradictions import AUTO, FSDP
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
    from dress.jobs.planned import Devices, planned, told  # transformers: seconds

    devices = Devices(planning.gpu or "this machine", **figures(planning, job.cfg.trainer))
    nodes = nodes_of(job, planning) | {"devices": vars(devices)}
    with job.building(
        kind="plan", nodes=nodes, parents={}, name=f"plan_{job.cfg.name}"
    ) as building:
        if not building.reused:
            found = planned(job, nodes, devices=devices, lengths=planning.lengths)
            write_text(building.path / PLAN, json.dumps(found, indent=2))
    print(told(read_json(building.artifact.path / PLAN)), flush=True)
    return building.artifact


def nodes_of(job: Job, planning: Planning) -> dict[str, Any]:
    """Return what a plan is made of; where the number of rows is asked for, 1 stands for it."""
    from dress.jobs.planned import shaped  # transformers: seconds

    spec = shaped(job.node("model"), planning.shapes)
    rows = job.cfg.datamodule.rows_per_batch
    return {name: job.node(name) for name in READ} | {
        "model": spec | {"trainable": spec["trainable"][job.cfg.stage]},
        "rows_per_batch": 1 if rows == AUTO else rows,
        "precision": job.cfg.trainer.precision,
    }


def settle_rows(job: Job) -> None:
    """Put the most rows that fit the device in the place of `datamodule.rows_per_batch=auto`.

    A row is taken to have `datamodule.row_tokens` tokens, or else `model.max_length`. InputError
    where not even one fits.
    """
    cfg = job.cfg
    if cfg.datamodule.rows_per_batch != AUTO:
        return
    from dress.jobs.planned import Devices, planned  # transformers: seconds

    planning = Planning(**job.node("plan"))
    given = figures(planning, cfg.trainer)
    if planning.gpu is None:
        given |= found_here(cfg.trainer)
        given["usable"] = int(given["memory"] * (1 - planning.spare))
    length = cfg.datamodule.row_tokens or cfg.model.max_length
    devices = Devices(planning.gpu or "this machine", **given)
    nodes = nodes_of(job, planning)
    (setting,) = planned(job, nodes, devices=devices, lengths=[length])["settings"]
    rows, size = setting["rows_that_fit"], f"{devices.usable / 2**30:.1f} GiB"
    if not rows:
        raise InputError(
            f"datamodule.rows_per_batch=auto: not one row of {length} tokens fits {size} (job=plan "
            "tells what takes them): give module.activation_checkpointing=true, "
            "trainer.strategy=fsdp or a smaller model.max_length."
        )
    cfg.datamodule.rows_per_batch = rows
    print(f"rows_per_batch={rows}: as many rows of {length} tokens fit {size}", flush=True)


def check_device(planning: Planning, trainer: DictConfig) -> None:
    """Refuse a GPU beside the precision and the attention of a CPU, and the other way round."""
    accelerator = trainer.accelerator
    if planning.gpu is None and accelerator != "cpu":
        raise InputError(
            "plan.gpu is null, which stands for the memory of this machine with trainer=cpu: give "
            "trainer=gpu plan.gpu=h200 or another."
        )
    if planning.gpu is not None and accelerator == "cpu":
        raise InputError(
            f"plan.gpu is {planning.gpu} and trainer.accelerator cpu: give trainer=gpu, whose "
            "precision and attention are then planned, or plan.gpu=null."
        )


def figures(planning: Planning, trainer: DictConfig) -> dict[str, Any]:
    """Return memory in bytes, what of it may be used, and the FLOP/s that are reached."""
    if planning.gpu is None:
        memory, flops = _pages("SC_PHYS_PAGES") // trainer.devices, None
    else:
        gpu = planning.gpus[planning.gpu]
        memory, flops = int(gpu["gib"] * 2**30), gpu["tflops"] * 1e12 * planning.mfu
    return {
        "count": trainer.devices * trainer.num_nodes,
        "fused": trainer.accelerator != "cpu",
        "strategy": FSDP if trainer.strategy == FSDP else "ddp",
        "memory": memory,
        "usable": int(memory * (1 - planning.spare)),
        "flops": flops,
    }


def found_here(trainer: DictConfig) -> dict[str, Any]:
    """Return the bytes of this process's GPU, or its part of what programs may take here."""
    import torch  # seconds

    from dress.modeling.devices import own_device

    if (device := own_device(trainer.accelerator)).type == "cuda":
        return {"memory": torch.cuda.get_device_properties(device).total_memory, "fused": True}
    memory, meminfo = _pages("SC_PHYS_PAGES"), Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        memory = int(lines["MemAvailable"].split()[0]) * 1024
    return {"memory": memory // trainer.devices, "fused": False}


def _pages(name: str) -> int:
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
