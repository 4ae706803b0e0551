"""job=evaluate: a model artifact on a benchmark under one condition, with intervals."""

from __future__ import annotations

from hydra.utils import instantiate

from dress.artifact import Artifact
from dress.errors import InputError
from dress.evaluation.benchmark import Benchmark
from dress.evaluation.table import table
from dress.jobs.backend import configure
from dress.jobs.job import Job, open_model
from dress.jobs.progress import Bar


def run(job: Job) -> Artifact:
    if not job.cfg.artifact:
        raise InputError("artifact is not set: give the model to evaluate, artifact=<directory>.")
    if job.cfg.benchmark.get("_target_") is None:
        raise InputError("benchmark=none has nothing to evaluate: give benchmark=world.")
    job.refuse_model_overrides("only condition.target, benchmark.* and generation.* can")
    artifact = open_model(job.cfg.artifact)
    evaluation = evaluate_artifact(job, artifact, target=str(job.cfg.condition.target))
    print(table({str(job.cfg.condition.target): evaluation.metrics}))
    return evaluation


def evaluate_artifact(
    job: Job, artifact: Artifact, *, target: str, on: str = "benchmark"
) -> Artifact:
    """Return the evaluation of a model under a target on a benchmark node, made now or found."""
    benchmark: Benchmark = instantiate(job.cfg[on], _convert_="all")
    nodes = {
        "benchmark": job.node(on),
        "generation": job.node("generation"),
        "target": target,
    }
    parents = {"model": artifact}
    name = f"{benchmark.name}_{artifact.lineage['name'].rsplit('-', 1)[0]}"
    with job.building(kind="evaluation", nodes=nodes, parents=parents, name=name) as building:
        if not building.reused:
            from dress.evaluation.runner import evaluate  # transformers, open_clip: seconds
            from dress.loading import load_artifact

            configure(job.cfg.trainer)
            assistant = load_artifact(artifact)
            assistant.condition.target(target)
            total = sum(1 for _ in benchmark.examples())
            with Bar(f"evaluating {artifact.name} ({target})", total) as shown:
                metrics = evaluate(
                    assistant,
                    benchmark,
                    target=target,
                    directory=building.path,
                    on_batch=shown.update,
                    **job.node("generation"),
                )
            building.write_metrics(metrics)
    assert building.artifact is not None
    return building.artifact
