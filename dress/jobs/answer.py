"""A model answers the questions of a benchmark, here or in one process per device."""

from __future__ import annotations

from pathlib import Path

from hydra.utils import instantiate

from dress.artifact import Artifact, Building
from dress.distributed import place
from dress.evaluation.benchmark import Benchmark
from dress.evaluation.runner import Generated, generate, restore
from dress.jobs.checks import world_size
from dress.jobs.job import Job
from dress.jobs.processes import Order, Result, launch, order_of
from dress.loading import load_artifact
from dress.modeling.devices import configure, own_device
from dress.progress import Bar

JOURNAL = "generated.jsonl"


def answers(job: Job, building: Building, artifact: Artifact, *, on: str, target: str) -> Generated:
    """Return what the model says under a target to the questions of a benchmark node."""
    order = order_of(job, "answer") | {
        "building": str(building.path),
        "artifact": str(artifact.path),
        "on": on,
        "target": target,
    }
    if world_size() == 1 and job.cfg.trainer.devices > 1:
        launch(order, job.cfg.trainer.devices)
    else:
        carry_out(job, order)
    return restore(instantiate(job.cfg[on], _convert_="all"), _journal(building))


def carry_out(job: Job, order: Order) -> Result:
    """Answer this process's share of the questions; the first one saves all answers."""
    accelerator = job.cfg.trainer.accelerator
    configure(matmul_precision=job.cfg.matmul_precision, accelerator=accelerator)
    building = Building(path=Path(order["building"]))
    artifact = Artifact.open(order["artifact"])
    assistant = load_artifact(artifact)
    assistant.model.to(own_device(accelerator))
    benchmark: Benchmark = instantiate(job.cfg[order["on"]], _convert_="all")
    total = sum(1 for _ in benchmark.examples())
    with Bar(f"evaluating {artifact.name} ({order['target']})", total) as shown:
        generate(
            assistant,
            benchmark,
            target=order["target"],
            directory=building.path,
            journal=_journal(building),
            on_batch=shown.update if place()[0] == 0 else None,
            **job.node("generation"),
        )
    return {}, False


def _journal(building: Building) -> Path:
    return building.scratch / JOURNAL
