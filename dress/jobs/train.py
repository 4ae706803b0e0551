"""job=train: one stage, any objective; ends, where asked, with evaluations side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dress.artifact import Artifact
from dress.data.shard_set import ShardSet
from dress.errors import InputError
from dress.interrupts import INTERRUPTED, Interrupted
from dress.jobs import report
from dress.jobs.checks import world_size
from dress.jobs.contradictions import processes_of, records_needed
from dress.jobs.data_sets import Parents, mixed, open_data_set
from dress.jobs.evaluate import evaluate_artifact
from dress.jobs.job import Job, open_model
from dress.jobs.plan import settle_rows
from dress.jobs.resolved import resolved_model, resolved_template
from dress.reporting.comparison import gain_line, headline_gains
from dress.reporting.selection import Selection
from dress.reporting.tables import table
from dress.wandb_mode import wandb_mode

MEMORY_KNOBS = ("rows_per_batch", "num_workers", "activation_checkpointing")  # change no number
PLACES = ("shards", "cache")  # data counts by its own fingerprint, wherever it lies
MIXTURE_KNOBS = ("mixture", "weight", "when_dry")
CONDITION_NODES = ("form", "dropout", "aspect_dropout", "turns")
HARDWARE_AND_WATCHING = {  # keys of the trainer that change no number; all others count
    "_target_",
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "sync_batchnorm",
    "val_check_interval",
    "check_val_every_n_epoch",
    "limit_val_batches",
    "num_sanity_val_steps",
    "log_every_n_steps",
    "profiler",
    "detect_anomaly",
    "enable_checkpointing",
    "enable_model_summary",
    "enable_progress_bar",
    "use_distributed_sampler",
    "max_epochs",
}
VALIDATION = {"val_check_interval", "check_val_every_n_epoch", "limit_val_batches"}
WATCHERS = re.compile(  # callbacks that change no number; all others count
    r"lit_modules\.callbacks\.(?!best_weights).*"
    r"|lightning\.pytorch\.callbacks\.(\w+\.)*"
    r"(DeviceStatsMonitor|LearningRateMonitor|ModelCheckpoint|ModelSummary|RichModelSummary"
    r"|RichProgressBar|ThroughputMonitor|TQDMProgressBar)"
)


def run(job: Job) -> Artifact:
    config = fingerprinted(job)
    if world_size() > 1:
        from dress.jobs.hosts import meeting

        meeting()  # where the others wait while parents are built
    parents = parents_of(job, config)
    stop = False
    with job.building(
        kind="model", nodes=config, parents=parents.by_role(), keep_partial=True
    ) as building:
        if not building.reused:
            settle_rows(job)
            if world_size() > 1:
                from dress.jobs.hosts import fit_on_all_hosts as fit
            elif processes_of(job.cfg) > 1:
                from dress.jobs.processes import fit_on_all_devices as fit
            else:
                from dress.jobs.fit import fit  # Lightning, transformers, open_clip: seconds
            metrics, stop = fit(job, building, config, parents)
            building.write_metrics(metrics)
        if world_size() > 1 and not job.is_parent:
            from dress.jobs.hosts import let_go

            let_go()
    if stop:
        raise Interrupted(INTERRUPTED)
    artifact = building.artifact
    evaluations = compare(
        job, {"self": artifact} | ({"init": parents.init} if parents.init else {})
    )
    log_model(job, artifact, parents)
    if evaluations and job.cfg.report.after and not job.is_parent:
        page = report.write(job, Selection(evaluations=evaluations, models=()))
        print(f"report: {page.path / 'report.html'}", flush=True)
    return artifact


def parents_of(job: Job, config: Mapping[str, Any]) -> Parents:
    """Return what the model is trained from, built first where it is missing."""
    init = initial_artifact(job)
    if init:
        check_inherited(config, init)
    named = job.cfg.rounds > 1 or job.cfg.init_from not in (None, "random", "pretrained")
    # responses are sampled from the model that is going to learn from them
    data: ShardSet
    if job.cfg.datamodule.shards is not None:
        data = open_data_set(job.cfg.datamodule.shards)
    else:
        data = job.parent("data", *([f"artifact='{init.path}'"] if named and init else []))
    mixture = {
        name: open_data_set(entry.artifact) if entry.get("artifact") else job.parent(name)
        for name, entry in mixed(job.cfg).items()
    }
    return Parents(data=data, init=init, reward=reward_artifact(job), mixture=mixture)


def initial_artifact(job: Job) -> Artifact | None:
    """Return the model to start from, or None for random or public weights.

    From the second round on it is the model of the round before.
    """
    if job.cfg.rounds > 1:
        return job.again(f"rounds={job.cfg.rounds - 1}")
    given = job.cfg.init_from
    if given in ("random", "pretrained"):
        return None
    return open_model(given) if given else job.parent("init")


def reward_artifact(job: Job) -> Artifact | None:
    """Return the reward model of `reward_from` or `lineage.reward`, where responses are drawn."""
    if records_needed(job.cfg) != "prompts":
        return None
    given = job.cfg.reward_from
    artifact = open_model(given) if given else job.parent("reward")
    if artifact.config["model"].get("scalar_head") is not True:
        raise InputError(
            f"{artifact.path} is not a reward model: give one of experiment=llava_rlhf_rm as "
            "reward_from."
        )
    return artifact


def check_inherited(config: Mapping[str, Any], init: Artifact) -> None:
    here, there = config["model"], init.config["model"]
    nodes = [
        (f"model.{part}", here[part], there[part]) for part in ("vision", "projector", "language")
    ]
    for node, given, inherited in (
        *nodes,
        ("template", config["template"], init.config["template"]),
    ):
        for key in sorted(given.keys() | inherited.keys()):
            if given.get(key) != inherited.get(key):
                raise InputError(
                    f"{node}.{key} is {given.get(key)!r}, but {inherited.get(key)!r} in "
                    f"{init.path}: give the same {node}, or init_from=pretrained."
                )


def fingerprinted(job: Job) -> dict[str, Any]:
    """Return the nodes that decide what is trained; they become the artifact's config.yaml."""
    condition, trainer = job.node("condition"), job.node("trainer")
    unused = (*MEMORY_KNOBS, *PLACES)
    datamodule = {k: v for k, v in job.node("datamodule").items() if k not in unused}
    if sources := mixed(job.cfg):
        # what is mixed counts by its own fingerprint, wherever it lies
        datamodule["mixture"] = {
            name: {"weight": entry.weight, "encoder": datamodule["mixture"][name]["encoder"]}
            if entry.get("encoder")
            else entry.weight
            for name, entry in sources.items()
        }
    else:
        datamodule = {k: v for k, v in datamodule.items() if k not in MIXTURE_KNOBS}
    model = resolved_model(job)
    names = ("seed", "stage", "optimizer", "scheduler", "matmul_precision")
    callbacks = deciding_callbacks(job)
    watching = HARDWARE_AND_WATCHING - (VALIDATION if callbacks else set())
    needed, processes = records_needed(job.cfg), processes_of(job.cfg)
    return {name: job.node(name) for name in names} | {
        "module": {k: v for k, v in job.node("module").items() if k not in MEMORY_KNOBS},
        "template": resolved_template(job),
        # the same numbers, computed at another time
        "objective": {k: v for k, v in job.node("objective").items() if k != "reference"}
        | {"requires": needed},
        # what trains in other stages is no matter of this one
        "model": model | {"trainable": model["trainable"][job.cfg.stage]},
        "datamodule": datamodule,
        "trainer": {k: v for k, v in trainer.items() if k not in watching},
        "condition": {name: condition[name] for name in CONDITION_NODES},
        **({"callbacks": callbacks} if callbacks else {}),
        # each process draws the responses of its prompts from a random stream of its own
        **({"processes": processes} if needed == "prompts" and processes > 1 else {}),
    }


def deciding_callbacks(job: Job) -> dict[str, Any]:
    """Return the callbacks that change what is trained; ratings do where another monitors them."""
    callbacks = {name: node for name, node in job.node("callbacks").items() if node is not None}
    deciding = {
        name: node for name, node in callbacks.items() if not WATCHERS.fullmatch(node["_target_"])
    }
    monitored = [str(node.get("monitor")) for node in deciding.values()]
    if any(name.startswith("val/rating/") for name in monitored):
        deciding |= {n: node for n, node in callbacks.items() if n == "condition_ratings"}
    return deciding


def note(job: Job, artifact: Artifact, figures: Mapping[str, float]) -> None:
    """Add figures to a trained model and to its W&B run, once."""
    known = artifact.metrics
    if all(known.get(name) == value for name, value in figures.items()):
        return
    artifact.update_metrics(figures)
    if (settings := wandb_settings(job)) is not None:
        from lit_modules.loggers.weights_and_biases import log_evaluations  # Lightning: seconds

        log_evaluations(artifact, figures, **settings)


def log_model(job: Job, artifact: Artifact, parents: Parents) -> None:
    """Log the finished model to W&B where `logger.wandb.log_model` asks for it."""
    settings = wandb_settings(job)
    if settings is not None and job.cfg.logger.wandb.get("log_model"):
        from lit_modules.loggers import weights_and_biases  # Lightning: seconds

        weights_and_biases.log_model(artifact, parents.by_role(), **settings)


def wandb_settings(job: Job) -> dict[str, Any] | None:
    """Return how the W&B run of a model is found again, or None where W&B is off."""
    wandb = job.cfg.logger.get("wandb")
    if not wandb or wandb_mode(wandb.mode) == "disabled":
        return None
    return {"is_parent": job.is_parent, "project": wandb.project, "mode": wandb.mode}


def compare(job: Job, artifacts: Mapping[str, Artifact]) -> tuple[Artifact, ...]:
    """Evaluate what `compare` lists, note the figures and print a table per benchmark."""
    evaluations: list[Artifact] = []
    tables: dict[str, dict[str, dict[str, float]]] = {}
    figures: dict[str, float] = {}
    for entry in job.cfg.compare:
        on = entry.get("benchmark", "benchmark")
        if entry.role not in artifacts or job.cfg[on].get("_target_") is None:
            continue
        evaluation = evaluate_artifact(job, artifacts[entry.role], target=entry.target, on=on)
        evaluations.append(evaluation)
        tables.setdefault(on, {})[entry.label] = evaluation.metrics
        prefix = "" if entry.role == "self" else f"{entry.role}/"
        figures |= {f"{prefix}{name}": value for name, value in evaluation.metrics.items()}
    note(job, artifacts["self"], figures)
    for columns in tables.values():
        print(table(columns))
    columns = tables.get("benchmark", {})
    if len(columns) == 2 and all("world/helpfulness" in column for column in columns.values()):
        print(gain_line(headline_gains(*columns.values())))
    return tuple(evaluations)
