"""job=annotate: responses sampled from a model, or ready candidates, with feedback, as shards."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Any

from dress.artifact import Artifact
from dress.chat.condition import chosen_target, has_learned
from dress.feedback.endpoint import named_settings
from dress.generation import SPENT
from dress.jobs.job import Job, open_model
from dress.jobs.response_source import endpoint_nodes, is_endpoint

_OF_ROLLOUTS = (
    "first_candidates",
    "candidates",
    "revisions",
    "relapse_share",
    "false_share",
    "false_feedback",
)
_OF_READY_RESPONSES = ("responses", "prompts", "chunk", "parts", "part", "jsonl")


def run(job: Job) -> Artifact:
    feedback = job.node("feedback")
    if feedback["parts"] > 1 and feedback["part"] is None:
        return _merged(job, feedback["parts"])
    sampled = feedback["responses"] == "sampled"
    parents = _sampling_parents(job) if sampled else {"candidates": job.parent("candidates")}
    if sampled:
        learned = "model" in parents and has_learned(parents["model"].config)
        feedback["targets"] = [chosen_target(t, learned=learned) for t in feedback["targets"]]
    targets = feedback["targets"]
    with job.building(kind="shards", nodes=_nodes(job, feedback), parents=parents) as building:
        if not building.reused:
            from dress.jobs.respond import respond  # torch, transformers: seconds

            building.write_metrics(respond(job, building, parents, targets))
    return building.artifact


def _nodes(job: Job, feedback: dict[str, Any]) -> dict[str, Any]:
    """Return what the responses and their feedback are named by."""
    if feedback["responses"] != "sampled":
        used = {k: feedback[k] for k in _OF_READY_RESPONSES}
    else:
        unused = _OF_ROLLOUTS if feedback["turns"] == 1 else ()
        used = {k: value for k, value in feedback.items() if k not in unused}
    nodes = {
        "annotator": named_settings(job.node("annotator")),
        "seed": job.cfg.seed,
        "feedback": used,
    }
    return nodes | (endpoint_nodes(job, feedback["targets"]) if is_endpoint(job.cfg) else {})


def _merged(job: Job, parts: int) -> Artifact:
    """Join the parts of `feedback.parts`, made elsewhere or here and now."""
    parents = {f"part_{part}": job.again(f"feedback.part={part}") for part in range(parts)}
    with job.building(kind="shards", nodes={"parts": parts}, parents=parents) as building:
        if not building.reused:
            from dress.jobs.respond import stored, write

            groups = chain.from_iterable(stored(part) for part in parents.values())
            building.write_metrics(write(job, building.path, groups))
            spent: Counter[str] = Counter()
            for part in parents.values():
                spent.update({n: v for n, v in part.metrics.items() if n.startswith(SPENT)})
            building.write_metrics(spent)
    return building.artifact


def _sampling_parents(job: Job) -> dict[str, Artifact]:
    if is_endpoint(job.cfg):
        return {"prompts": job.parent("prompts")}
    given = job.cfg.artifact
    if given and not job.is_parent:  # a parent shares the overrides of what is trained
        job.refuse_model_overrides("only feedback.*, annotator.* and data.* can")
    model = open_model(given) if given else job.parent("model")
    return {"model": model, "prompts": job.parent("prompts")}
