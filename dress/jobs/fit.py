"""Training on one screen: model, data, objective, module, trainer, fit, save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import get_class, get_object, instantiate
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import TorchElasticEnvironment

from datamodules.reference_cache import reference_log_probs
from datamodules.streaming import ShardDataModule, Source
from dress.artifact import Artifact, Building
from dress.assistant import Assistant
from dress.chat.condition import chosen_target
from dress.chat.encoders import Encoder
from dress.data.collate import TreeCollator
from dress.distributed import place
from dress.feedback.annotator import Annotator, BatchAnnotator
from dress.feedback.given import GivenAnnotator
from dress.feedback.reward_scorer import RewardScorer
from dress.jobs.contradictions import FSDP
from dress.jobs.data_sets import Parents, cache, open_data_set
from dress.jobs.job import Job
from dress.jobs.resolved import resolved_model, resolved_template
from dress.loading import (
    artifact_tokenizer,
    assemble,
    load_artifact,
    new_tokenizer,
    restore,
    save,
)
from dress.modeling.build import build_hollow, build_model
from dress.modeling.devices import own_device
from dress.modeling.reference import ReferenceLogProbs
from dress.modeling.sharding import shard
from dress.modeling.trainable import set_trainable
from dress.modeling.tree_attention import attends_in_blocks
from dress.objectives.objective import Prepared
from lit_modules.callbacks.train_state import final_figures
from lit_modules.sharded import ShardedStrategy

Figures = dict[str, float]


def fit(
    job: Job, building: Building, config: Mapping[str, Any], parents: Parents
) -> tuple[Figures, bool]:
    """Train what `config` describes and save it to the building.

    Return the final figures, and whether a signal came too late to stop training.
    """
    cfg = job.cfg
    torch.set_float32_matmul_precision(cfg.matmul_precision)
    L.seed_everything(cfg.seed, verbose=False)

    # The model with its tokenizer and template: as its parent left it, or from scratch.
    sharded = cfg.trainer.get("strategy") == FSDP
    assistant = starting_point(job, config, init=parents.init, hollow=sharded and place()[0] > 0)
    print(set_trainable(assistant.model, config["model"]["trainable"]), flush=True)
    if sharded:
        shard(assistant.model, own_device(cfg.trainer.accelerator))

    # The data: records become sequences, sequences token trees, trees the steps of the optimizer.
    scorer = reward_scorer(job, parents.reward, sharded=sharded) if parents.reward else None
    offers = offers_of(job, building, config, assistant, parents) | {"judge": scorer}
    encoder = build(cfg.datamodule.encoder, offers)
    datamodule = build_datamodule(job, assistant, encoder, parents, offers)
    datamodule.check()

    # The objective, and the module that makes its steps.
    objective: Prepared = instantiate(cfg.objective, _convert_="all")
    objective.prepare(
        assistant.model, cached=partial(kept_log_probs, job, assistant, datamodule, parents)
    )
    offers |= {"objective": objective, "optimizer": instantiate(cfg.optimizer, _convert_="all")}
    offers |= {"scheduler": instantiate(cfg.scheduler), "rejects": datamodule.rejects}
    module = build(cfg.module, offers)

    # The trainer, with everything that watches it.
    callbacks = build_all(cfg.callbacks, offers)
    state = callbacks["train_state"]
    with ExitStack() as closing:
        loggers = [
            closing.enter_context(made) if isinstance(made, AbstractContextManager) else made
            for made in build_all(cfg.logger, offers).values()
        ]
        loggers = [logger for logger in loggers if logger is not None]  # such as W&B, disabled
        trainer = build_trainer(job, building, list(callbacks.values()), loggers)

        # Training goes on from the last state, if there is one.
        with state.explaining_errors():
            trainer.fit(module, datamodule, ckpt_path=state.resume_path(), weights_only=True)
            figures = state.figures | final_figures(trainer, module, datamodule)

    # The artifact: weights, tokenizer and what a reader of them has to know.
    if trainer.is_global_zero or sharded:
        save(assistant, building.path, spec=config["model"])
    if (rejects := datamodule.rejects).count:
        print(f"{rejects.count} groups rejected, first {rejects.first}", flush=True)
    return figures | rejects.metrics(), state.stop_requested


def carry_out(job: Job, order: Mapping[str, Any]) -> tuple[Figures, bool]:
    """Be one of several ranks that `fit` what an order describes (processes.py)."""
    parents = Parents(
        init=Artifact.open(order["init"]) if order["init"] else None,
        reward=Artifact.open(order["reward"]) if order["reward"] else None,
        data=open_data_set(order["data"]),
        mixture={name: open_data_set(place) for name, place in order["mixture"].items()},
    )
    return fit(job, Building(path=Path(order["building"])), order["config"], parents)


def starting_point(
    job: Job, config: Mapping[str, Any], *, init: Artifact | None, hollow: bool
) -> Assistant:
    """Build the model with its parent's weights, tokenizer and template, or from scratch."""
    spec = config["model"]
    source = partial(instantiate, job.cfg.source, _convert_="all")
    tokenizer = artifact_tokenizer(init) if init else new_tokenizer(config, source=source)
    if hollow:
        model = build_hollow(spec, tokenizer=tokenizer)
    else:
        model = build_model(spec, tokenizer=tokenizer)
        if init is not None:
            restore(model, init, spec=spec)
    return assemble(config, model=model, tokenizer=tokenizer)


def offers_of(
    job: Job,
    building: Building,
    config: Mapping[str, Any],
    assistant: Assistant,
    parents: Parents,
) -> dict[str, Any]:
    """Return what encoder, module, callbacks and loggers may ask for, by its name (`build`)."""
    cfg = job.cfg
    target = chosen_target(cfg.condition.target, learned=assistant.condition.learned)
    return {
        "assistant": assistant,
        "model": assistant.model,
        "processor": assistant.processor,
        "condition": assistant.condition,
        "target": target,
        "decoding": {k: cfg.generation[k] for k in ("max_new_tokens", "temperature", "batch_size")},
        "seed": cfg.seed,
        "data": parents.data,
        "reward": parents.reward,
        "annotator": live_annotator(job),
        "collator_of": partial(collator_of, job),
        "rows_per_batch": cfg.datamodule.rows_per_batch,
        "title": cfg.name,
        "config": config,
        "is_parent": job.is_parent,
        "scratch": building.scratch,
        "directory": building.path,  # of the artifact
        "save_dir": str(building.path),  # the same, as Lightning's loggers call it
    }


def live_annotator(job: Job) -> Annotator | None:
    """Return the annotator if it judges new responses at no cost."""
    if issubclass(get_class(job.cfg.annotator._target_), BatchAnnotator | GivenAnnotator):
        return None
    annotator: Annotator = instantiate(job.cfg.annotator, _convert_="all")
    return annotator


def reward_scorer(job: Job, reward: Artifact, *, sharded: bool) -> RewardScorer:
    """Load the frozen judge; whether it is told facts is a matter of its training."""
    judge = load_artifact(reward, hollow=sharded and place()[0] > 0)
    if sharded:
        shard(judge.model, own_device(job.cfg.trainer.accelerator))
    facts = bool(reward.config["datamodule"]["encoder"]["facts"])
    return RewardScorer(assistant=judge, collator=collator_of(job, judge), facts=facts)


def collator_of(job: Job, assistant: Assistant) -> TreeCollator:
    """Return what makes one batch of groups, as this model reads them."""
    node = job.cfg.datamodule
    return assistant.collator(
        share_prefixes=node.share_prefixes, pad_to_multiple=node.pad_to_multiple
    )


def build_datamodule(
    job: Job,
    assistant: Assistant,
    encoder: Encoder,
    parents: Parents,
    offers: Mapping[str, Any],
) -> ShardDataModule:
    node, model = job.cfg.datamodule, assistant.model
    trees = assistant.collator(
        share_prefixes=node.share_prefixes,
        rows_per_batch=node.rows_per_batch,
        row_tokens=node.row_tokens,
        pad_to_multiple=node.pad_to_multiple,
        answer_gap=node.answer_gap,
        one_row=model.trees
        and attends_in_blocks(model.language, own_device(job.cfg.trainer.accelerator)),
    )
    return ShardDataModule(
        directory=parents.data.location,
        encoder=encoder,
        collator=getattr(encoder, "collate", trees),  # an encoder of other things has its own
        groups_per_step=node.groups_per_step,
        seed=job.cfg.seed,
        window=node.window,
        num_workers=node.num_workers,
        max_rejects=job.cfg.data.max_rejects,
        others=[
            Source(
                directory=data.location,
                weight=node.mixture[name].weight,
                # records of another kind bring an encoder of their own
                encoder=build(own, offers)
                if (own := node.mixture[name].get("encoder"))
                else encoder,
            )
            for name, data in parents.mixture.items()
        ],
        weight=node.weight,
        when_dry=node.when_dry,
        cache=cache(job.cfg),
    )


def kept_log_probs(
    job: Job, assistant: Assistant, datamodule: ShardDataModule, parents: Parents
) -> ReferenceLogProbs:
    """Open what an earlier run has computed with this model on these data, or compute it now."""
    trainer = job.cfg.trainer
    nodes = {
        "model": {k: v for k, v in resolved_model(job).items() if k != "trainable"},
        "template": resolved_template(job),
        "encoder": job.node("datamodule")["encoder"],
        "precision": trainer.precision,
        "seed": None if parents.init else job.cfg.seed,  # of random weights
    }
    roles = {k: v for k, v in parents.by_role().items() if k in ("data", "init")}
    with job.building(
        kind="reference", nodes=nodes, parents=roles, name="dress_reference"
    ) as building:
        if building.reused:
            return ReferenceLogProbs.load(building.path)
        device = own_device(trainer.accelerator)
        computed = reference_log_probs(
            assistant.model, datamodule, device=device, precision=trainer.precision
        )
        computed.save(building.path)
    return computed


def build_trainer(
    job: Job, building: Building, callbacks: Sequence[L.Callback], loggers: Sequence[Logger]
) -> L.Trainer:
    """Build the trainer; the processes of several devices run already (processes.py, torchrun)."""
    several = place()[1] > 1
    given: dict[str, Any] = {
        "callbacks": callbacks,
        "logger": loggers,
        "plugins": [TorchElasticEnvironment()] if several else None,
        "default_root_dir": str(building.path),
    }
    node = job.node("trainer")
    if node.get("strategy") == FSDP:  # which Lightning takes for the first version
        given["strategy"] = ShardedStrategy()
        del node["strategy"]
    trainer: L.Trainer = build(node, given)
    return trainer


def build(node: Any, offers: Mapping[str, Any]) -> Any:
    """Call the `_target_` of a node with its settings and with the offers that it names.

    An offer is something that no YAML can hold, such as the model. Who needs it has a parameter of
    that name; a setting of the same name counts before it.
    """
    parameters = signature(get_object(node["_target_"])).parameters
    wanted = {k: v for k, v in offers.items() if k in parameters and k not in node}
    return instantiate(node, _partial_=True, _convert_="all")(**wanted)


def build_all(nodes: Mapping[str, Any], offers: Mapping[str, Any]) -> dict[str, Any]:
    """Build each node of a dictionary; what is null or has nothing to do here is left out."""
    built = {name: build(node, offers) for name, node in nodes.items() if node is not None}
    return {name: thing for name, thing in built.items() if thing is not None}
