"""job=evaluate: a model artifact, or responses made elsewhere, on a benchmark, with intervals."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from dress.artifact import Artifact, Building
from dress.chat.condition import chosen_target, has_learned
from dress.errors import InputError
from dress.evaluation.benchmark import Answered, Benchmark, Interaction, Judge, Judged
from dress.evaluation.public import PublicBenchmark
from dress.evaluation.response_file import Responses, read_responses
from dress.evaluation.scoring import RESPONSES, score
from dress.feedback.endpoint import named_settings
from dress.fingerprint import content_hash
from dress.jobs.job import Job, open_model
from dress.jobs.response_source import endpoint_nodes, is_endpoint
from dress.progress import Bar
from dress.reporting.tables import category_table, table


def run(job: Job) -> Artifact:
    if job.cfg.responses:
        if job.cfg.artifact or is_endpoint(job.cfg):
            other = "artifact" if job.cfg.artifact else "sampler=endpoint"
            raise InputError(f"{other} and responses are both set: give one of them.")
        evaluation = evaluate_responses(job, Path(job.cfg.responses))
        title = Path(job.cfg.responses).stem
    elif job.cfg.benchmark.get("_target_") is None:
        raise InputError("benchmark=none has nothing to evaluate: give benchmark=world.")
    elif is_endpoint(job.cfg):
        evaluation = evaluate_endpoint(job)
        title = job.cfg.sampler.model
    elif job.cfg.artifact:
        job.refuse_model_overrides("only condition.target, benchmark.* and generation.* can")
        artifact = open_model(job.cfg.artifact)
        evaluation = evaluate_artifact(job, artifact, target=job.cfg.condition.target)
        title = evaluation.config["target"]
    else:
        raise InputError(
            "artifact is not set: give the model to evaluate, artifact=<directory>, or "
            "sampler=endpoint or responses=<file>."
        )
    show(title, evaluation)
    return evaluation


def show(title: str, evaluation: Artifact) -> None:
    metrics = evaluation.metrics
    categories = category_table(metrics)
    if categories:
        print(categories)
        metrics = {name: value for name, value in metrics.items() if name.count("/") == 1}
    print(table({title: metrics}), flush=True)


def evaluate_responses(job: Job, path: Path) -> Artifact:
    """Return the evaluation of a file of responses; needs neither model nor images."""
    known = job.cfg.benchmark.get("_target_") is not None
    benchmark = instantiate(job.cfg.benchmark, _convert_="all") if known else None
    if not isinstance(benchmark, PublicBenchmark) or isinstance(benchmark, Interaction):
        name = getattr(benchmark, "name", "none")
        given = any(override.startswith("benchmark=") for override in job.overrides)
        subject = f"benchmark={name}" if given else f"benchmark is not set, and its default {name}"
        raise InputError(
            f"{subject} cannot score a file of responses: give benchmark=pope, or whichever of "
            "docs/benchmarks.md the file answers."
        )
    judge = _judge(job, benchmark)
    inputs = benchmark.inputs() | {"responses": content_hash(path)}
    nodes = _nodes(job, benchmark, "benchmark")
    name = f"{benchmark.name}_{_plain_name(path.stem)}"
    with job.building(
        kind="evaluation", nodes=nodes, parents={}, inputs=inputs, name=name
    ) as building:
        if not building.reused:
            found = read_responses(path, benchmark)
            _write_metrics(building, benchmark, found.answered, judge=judge, target=None)
            building.write_metrics(_counts(benchmark, found))
    _say_unjudged(building.artifact, benchmark, judge)
    return building.artifact


def evaluate_artifact(
    job: Job, artifact: Artifact, *, target: str | int, on: str = "benchmark"
) -> Artifact:
    """Return the evaluation of a model under a target on a benchmark node, made now or found."""
    target = chosen_target(target, learned=has_learned(artifact.config))
    name = artifact.lineage["name"].rsplit("-", 1)[0]
    return _evaluated(job, artifact, name=name, target=target, on=on)


def evaluate_endpoint(job: Job) -> Artifact:
    """Return the evaluation of the model behind a server, under no condition unless one is asked.

    It has no model as a parent, and is named by what the server calls it.
    """
    target = chosen_target(job.cfg.condition.target, learned=False)
    name = _plain_name(job.cfg.sampler.model)
    return _evaluated(job, None, name=name, target=target, on="benchmark")


def _plain_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)


def _evaluated(job: Job, artifact: Artifact | None, *, name: str, target: str, on: str) -> Artifact:
    """Evaluate an artifact, or the endpoint where there is none."""
    parents = ({"model": artifact} if artifact else {}) | open_dialogues(job, artifact, on)
    benchmark: Benchmark = instantiate(job.cfg[on], _convert_="all")
    judge = _judge(job, benchmark)
    inputs: dict[str, str] = {}
    if isinstance(benchmark, PublicBenchmark):
        images = benchmark.check_images(list(benchmark.examples()))
        inputs = benchmark.inputs() | {"images": images}
    nodes = _nodes(job, benchmark, on) | {
        "generation": job.node("generation"),
        "target": target,
    }
    if artifact is None:
        nodes |= endpoint_nodes(job, [target])
    with job.building(
        kind="evaluation",
        nodes=nodes,
        parents=parents,
        inputs=inputs,
        name=f"{benchmark.name}_{name}",
        keep_partial=True,
    ) as building:
        if not building.reused:
            _generate_and_score(
                job, artifact, benchmark, building, judge=judge, target=target, on=on
            )
    _say_unjudged(building.artifact, benchmark, judge)
    return building.artifact


def open_dialogues(job: Job, artifact: Artifact | None, on: str) -> dict[str, Artifact]:
    """Find or sample the responses that dialogues open with; tell the benchmark where they are.

    They are sampled from the stage-1 model that the artifact comes from.
    """
    node = job.cfg[on]
    if node.get("first") != "faulty":
        return {}
    if Path(node.openings).is_dir():
        return {"openings": Artifact.open(node.openings)}
    if artifact is None:
        raise InputError(
            "benchmark.first=faulty opens with responses of a stage-1 model, and sampler=endpoint "
            "comes from none: give benchmark.openings=<folder of an artifact of "
            "experiment=dress_openings>."
        )
    stage1 = ancestor(artifact, stage="stage1")
    openings = job.built(
        node.openings,
        f"artifact='{stage1.path}'",
        f"seed={stage1.config['seed']}",
        f"data.sizes.questions={node.scenes}",
        f"source.held_out_seed={node.seed}",
    )
    node.openings = str(openings.path)
    return {"openings": openings}


def ancestor(artifact: Artifact, *, stage: str) -> Artifact:
    """Return the model of a stage that an artifact was trained from, or the artifact itself."""
    found = artifact
    while found.config.get("stage") != stage:
        parent = found.lineage["parents"].get("init")
        folder = found.path.parent / str(parent["name"] if parent else "")
        if parent is None or not folder.is_dir():
            raise InputError(
                f"{artifact.path} comes from no model of {stage} in {found.path.parent}: give "
                "benchmark.openings=<folder of an artifact of experiment=dress_openings>."
            )
        found = Artifact.open(folder)
    return found


def _generate_and_score(
    job: Job,
    artifact: Artifact | None,
    benchmark: Benchmark,
    building: Building,
    *,
    judge: Judge | None,
    target: str,
    on: str,
) -> None:
    from dress.jobs.answer import answers  # torch, transformers, open_clip: seconds

    made = answers(job, building, artifact, on=on, target=target)
    if not made.answered:
        raise InputError(f"no question of {benchmark.name} got a response: {made.unanswered[0]}.")
    _write_metrics(building, benchmark, made.answered, judge=judge, target=target)
    if isinstance(benchmark, PublicBenchmark):
        missing = tuple(reject.key for reject in made.unanswered)
        building.write_metrics(_counts(benchmark, Responses(made.answered, missing, 0)))


def _nodes(job: Job, benchmark: Benchmark, on: str) -> dict[str, Any]:
    """Return what an evaluation is named by; files count by their content, wherever they lie."""
    node = {key: value for key, value in job.node(on).items() if key not in ("root", "openings")}
    if "annotator" in node:
        node["annotator"] = named_settings(node["annotator"])
    nodes: dict[str, Any] = {"benchmark": node}
    if isinstance(benchmark, Judged):
        nodes["judge"] = named_settings(job.node("judge"))
    return nodes


def _judge(job: Job, benchmark: Benchmark) -> Judge | None:
    if not isinstance(benchmark, Judged) or job.cfg.judge.get("_target_") is None:
        return None
    judge: Judge = instantiate(job.cfg.judge, _convert_="all")
    return judge


def _write_metrics(
    building: Building,
    benchmark: Benchmark,
    answered: tuple[Answered, ...],
    *,
    judge: Judge | None,
    target: str | None,
) -> None:
    with Bar("judging", len(answered)) as shown:
        figures = score(
            benchmark,
            answered,
            directory=building.path,
            target=target,
            judge=judge,
            on_judged=shown.update,
        )
    building.write_metrics(figures)
    if judge is not None:
        building.write_metrics(judge.metrics())


def _counts(benchmark: PublicBenchmark, found: Responses) -> dict[str, float]:
    counts = {
        "responses": len(found.answered),
        "empty": sum(not answered.response.strip() for answered in found.answered),
        "unanswered": len(found.unanswered),
        "ignored": found.ignored,
    }
    return {f"{benchmark.name}/{name}": float(count) for name, count in counts.items()}


def _say_unjudged(evaluation: Artifact, benchmark: Benchmark, judge: Judge | None) -> None:
    if isinstance(benchmark, Judged) and judge is None:
        print(
            f"judge=none: nothing is rated; score the saved responses with judge=llm "
            f"responses={evaluation.path / RESPONSES}",
            flush=True,
        )
