"""job=train: one stage, any objective; ends, where asked, with evaluations side by side."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import lightning as L
from hydra.utils import instantiate
from transformers import PreTrainedTokenizerFast

from datamodules.base import ShardDataModule
from dress.artifact import Artifact, Building
from dress.assistant import Assistant
from dress.data.collate import TreeCollator
from dress.errors import InputError
from dress.evaluation.table import headline_gains, table
from dress.jobs.backend import configure
from dress.jobs.evaluate import evaluate_artifact
from dress.jobs.job import Job
from dress.jobs.monitoring import callbacks, loggers
from dress.loading import WEIGHTS, artifact_tokenizer, assemble, save
from dress.modeling.build import build_model, public_base
from dress.modeling.checkpoint import load_weights
from dress.modeling.tokenizer import load_tokenizer, train_tokenizer
from dress.modeling.trainable import set_trainable
from lit_modules.alignment import AlignmentModule, NonFiniteStep
from lit_modules.callbacks.stop import Interrupted
from lit_modules.callbacks.train_state import TrainState
from lit_modules.schedule import warmup_cosine

TRAINER_NODES = ("max_steps", "warmup_steps", "final_lr", "gradient_clip", "precision")
INTERRUPTED = 130


def run(job: Job) -> Artifact:
    init = initial_artifact(job)
    data = job.parent("data")
    parents = {"data": data} | ({"init": init} if init else {})
    with job.building(
        kind="model", nodes=fingerprinted(job), parents=parents, keep_partial=True
    ) as building:
        if not building.reused:
            metrics = fit(job, building, init=init, data=data)
            building.write_metrics(metrics)
    artifact = building.artifact
    assert artifact is not None
    compare(job, {"self": artifact} | ({"init": init} if init else {}))
    return artifact


def initial_artifact(job: Job) -> Artifact | None:
    """Return the model to start from, or None for random or public weights."""
    given = job.cfg.init_from
    if given == "random":
        return None
    return Artifact.open(given) if given else job.parent("init")


def fingerprinted(job: Job) -> dict[str, Any]:
    """Return the nodes that decide what is trained; they become the artifact's config.yaml."""
    trainer = job.node("trainer")
    condition = job.node("condition")
    nodes = ("seed", "stage", "model", "template", "datamodule", "objective", "optimizer")
    return {name: job.node(name) for name in nodes} | {
        "trainer": {name: trainer[name] for name in TRAINER_NODES},
        "condition": {name: condition[name] for name in ("form", "dropout")},
    }


def fit(
    job: Job, building: Building, *, init: Artifact | None, data: Artifact
) -> dict[str, float]:
    cfg = job.cfg
    configure(cfg.trainer)
    L.seed_everything(cfg.seed, verbose=False)
    config = fingerprinted(job)
    assistant = starting_point(job, config, init=init)
    report = set_trainable(assistant.model, config["model"]["trainable"][cfg.stage])
    print(report, flush=True)
    datamodule = build_datamodule(job, assistant, data)
    module = AlignmentModule(
        model=assistant.model,
        objective=instantiate(cfg.objective),
        optimizer=instantiate(cfg.optimizer, _convert_="all"),
        scheduler=partial(
            warmup_cosine,
            warmup_steps=cfg.trainer.warmup_steps,
            max_steps=cfg.trainer.max_steps,
            final=cfg.trainer.final_lr,
        ),
        gradient_clip=cfg.trainer.gradient_clip,
    )
    state = TrainState(directory=building.scratch, every_n_steps=cfg.trainer.save_every)
    trainer = build_trainer(job, building, assistant, data, state)
    train(trainer, module, datamodule, state)
    save(assistant, building.path, spec=config["model"])
    rejects = datamodule.rejects
    if rejects.count:
        print(f"rejects: {rejects.summary()}")
    return final_metrics(trainer) | {"data/rejects": float(rejects.count)}


def train(
    trainer: L.Trainer, module: AlignmentModule, datamodule: ShardDataModule, state: TrainState
) -> None:
    """Fit from the last state, if there is one; an interruption leaves one and says so."""
    try:
        trainer.fit(module, datamodule, ckpt_path=state.resume_path(), weights_only=True)
        if "val/loss" not in trainer.callback_metrics:
            trainer.validate(module, datamodule, verbose=False)
    except Interrupted as stopped:
        print(stopped, flush=True)
        sys.exit(INTERRUPTED)
    except NonFiniteStep as error:
        raise InputError(
            f"{error}; lower optimizer.lr or look at these groups (the state before it is kept)."
        ) from error


def starting_point(job: Job, config: Mapping[str, Any], *, init: Artifact | None) -> Assistant:
    """Build the model with its parent's weights, tokenizer and template, or from scratch."""
    spec = config["model"]
    if init is None:
        tokenizer = root_tokenizer(job, spec["tokenizer"])
        model = build_model(spec, tokenizer=tokenizer)
        return assemble(config, model=model, tokenizer=tokenizer)
    check_inherited(config, init)
    tokenizer = artifact_tokenizer(init)
    model = build_model(spec, tokenizer=tokenizer)
    load_weights(model, init.path / WEIGHTS, base=public_base(spec), merge_adapters=True)
    return assemble(config, model=model, tokenizer=tokenizer)


def check_inherited(config: Mapping[str, Any], init: Artifact) -> None:
    for node in ("vision", "projector", "language"):
        if init.config["model"][node] != config["model"][node]:
            raise InputError(
                f"model.{node} differs from that of {init.path}: give the same model, or "
                "init_from=random."
            )
    if init.config["template"] != config["template"]:
        raise InputError(f"template differs from that of {init.path}: give the same template.")


def root_tokenizer(job: Job, spec: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """Take the LM's own tokenizer, or train one on the texts of the source."""
    if spec["name"]:
        return load_tokenizer(spec["name"])
    source = instantiate(job.cfg.source, _convert_="all")
    return train_tokenizer(source.texts(), vocab_size=spec["vocab_size"])


def build_datamodule(job: Job, assistant: Assistant, data: Artifact) -> ShardDataModule:
    node = job.cfg.datamodule
    extra: dict[str, Any] = {"processor": assistant.processor}
    if job.cfg.objective.requires == "feedback":
        extra |= {"condition": assistant.condition, "seed": job.cfg.seed}
    encoder = instantiate(node.encoder, **extra)
    if encoder.requires != job.cfg.objective.requires:
        raise InputError(
            f"the objective needs records with {job.cfg.objective.requires}, the datamodule gives "
            f"{encoder.requires}: choose a datamodule that fits, e.g. datamodule=feedback."
        )
    collator = TreeCollator(
        pad_token_id=assistant.model.pad_token_id,
        image_token_id=assistant.model.image_token_id,
        num_image_tokens=assistant.processor.num_image_tokens,
        share_prefixes=node.share_prefixes and assistant.model.trees,
        rows_per_batch=node.rows_per_batch,
        row_tokens=node.row_tokens,
    )
    return ShardDataModule(
        directory=data.path,
        encoder=encoder,
        collator=collator,
        groups_per_step=node.groups_per_step,
        seed=job.cfg.seed,
        window=node.window,
        num_workers=node.num_workers,
        max_rejects=job.cfg.data.max_rejects,
    )


def build_trainer(
    job: Job, building: Building, assistant: Assistant, data: Artifact, state: TrainState
) -> L.Trainer:
    settings = job.cfg.trainer
    return L.Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=settings.precision,
        max_steps=settings.max_steps,
        max_epochs=-1,
        val_check_interval=settings.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=settings.log_every,
        logger=loggers(job, building),
        callbacks=[state, *callbacks(job, building, assistant, data)],
        enable_progress_bar=job.cfg.callbacks.progress,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=str(building.path),
    )


def final_metrics(trainer: L.Trainer) -> dict[str, float]:
    return {
        name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name
    }


def compare(job: Job, artifacts: Mapping[str, Artifact]) -> None:
    """Evaluate what `compare` lists, print the table and note the figures in the model's own."""
    if not job.cfg.compare or job.cfg.benchmark.get("_target_") is None:
        return
    columns: dict[str, dict[str, float]] = {}
    for entry in job.cfg.compare:
        if entry.role in artifacts:
            evaluation = evaluate_artifact(job, artifacts[entry.role], target=entry.target)
            columns[entry.label] = evaluation.metrics
            prefix = "" if entry.role == "self" else f"{entry.role}/"
            metrics = {f"{prefix}{name}": value for name, value in evaluation.metrics.items()}
            artifacts["self"].update_metrics(metrics)
    print(table(columns))
    if len(columns) == 2:
        gains = headline_gains(*columns.values())
        print("gain: " + ", ".join(f"{name} {value:+.1f} %" for name, value in gains.items()))
