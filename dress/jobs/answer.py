"""A model answers the questions of a benchmark, here or in one process per device."""

from __future__ import annotations

from pathlib import Path

from hydra.utils import instantiate

from dress.artifact import Artifact, Building
from dress.distributed import place
from dress.evaluation.benchmark import Benchmark
from dress.evaluation.runner import Generated, generate, restore
from dress.feedback.sampler import Sampler
from dress.jobs.checks import world_size
from dress.jobs.job import Job
from dress.jobs.processes import Order, Result, launch, order_of
from dress.jobs.response_source import open_assistant, open_endpoint
from dress.progress import Bar

JOURNAL = "generated.jsonl"


def answers(
    job: Job, building: Building, artifact: Artifact | None, *, on: str, target: str
) -> Generated:
    """Return what the model says under a target to the questions of a benchmark node.

    Where there is no artifact it is the model behind a server, which needs one process alone.
    """
    if artifact is None:
        sampler = open_endpoint(job)
        _answer(job, building, sampler, name=job.cfg.sampler.model, on=on, target=target)
        building.write_metrics(sampler.metrics())
        return _restored(job, building, on)
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
    return _restored(job, building, on)


def carry_out(job: Job, order: Order) -> Result:
    """Answer this process's share of the questions; the first one saves all answers."""
    artifact = Artifact.open(order["artifact"])
    sampler = open_assistant(job, artifact)
    building = Building(path=Path(order["building"]))
    _answer(job, building, sampler, name=artifact.name, on=order["on"], target=order["target"])
    return {}, False


def _answer(
    job: Job, building: Building, sampler: Sampler, *, name: str, on: str, target: str
) -> None:
    benchmark: Benchmark = instantiate(job.cfg[on], _convert_="all")
    total = sum(1 for _ in benchmark.examples())
    with Bar(f"evaluating {name} ({target})", total) as shown:
        generate(
            sampler,
            benchmark,
            target=target,
            directory=building.path,
            journal=_journal(building),
            on_batch=shown.update if place()[0] == 0 else None,
            **job.node("generation"),
        )


def _restored(job: Job, building: Building, on: str) -> Generated:
    return restore(instantiate(job.cfg[on], _convert_="all"), _journal(building))


def _journal(building: Building) -> Path:
    return building.scratch / JOURNAL
