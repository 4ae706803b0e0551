"""Training itself: from a job and its parents to a trained model in the artifact's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import lightning as L
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from transformers import PreTrainedTokenizerFast

from datamodules.base import ShardDataModule
from dress.artifact import Artifact, Building
from dress.assistant import Assistant
from dress.chat.prompts import collate_prompts
from dress.data.collate import TreeCollator
from dress.data.shard_set import ShardSet
from dress.errors import InputError
from dress.feedback.reward_scorer import RewardScorer
from dress.jobs.backend import configure, device
from dress.jobs.data_sets import cache
from dress.jobs.job import Job
from dress.jobs.monitoring import callbacks
from dress.jobs.policy import policy_module, reward_scorer
from dress.jobs.reference import reference_log_probs
from dress.jobs.tracking import tracking
from dress.loading import artifact_tokenizer, assemble, restore, save
from dress.modeling.build import build_model
from dress.modeling.tokenizer import load_tokenizer, train_tokenizer
from dress.modeling.trainable import set_trainable
from dress.modeling.tree_attention import attends_in_blocks
from dress.objectives.dpo import DPO
from lit_modules.alignment import AlignmentModule, NonFiniteStep
from lit_modules.callbacks.data_figures import DataFigures
from lit_modules.callbacks.train_state import TrainState
from lit_modules.schedule import warmup_cosine


def fit(
    job: Job,
    building: Building,
    config: Mapping[str, Any],
    *,
    init: Artifact | None,
    data: ShardSet,
    others: Mapping[str, ShardSet],
    reward: Artifact | None = None,
) -> tuple[dict[str, float], bool]:
    """Train what `config` describes and save it to the building.

    Return the final figures, and whether a signal came too late to stop training.
    """
    cfg = job.cfg
    configure(cfg.trainer)
    L.seed_everything(cfg.seed, verbose=False)
    assistant = starting_point(job, config, init=init)
    report = set_trainable(assistant.model, config["model"]["trainable"])
    print(report, flush=True)
    scorer = reward_scorer(job, reward) if reward else None
    datamodule = build_datamodule(job, assistant, data, others, scorer=scorer)
    datamodule.check()
    module = build_module(job, assistant, reward=reward, scorer=scorer)
    if isinstance(objective := module.objective, DPO) and objective.reference == "cached":
        objective.use(reference_log_probs(job, assistant.model, datamodule, init=init, data=data))
    state = TrainState(directory=building.scratch, every_n_steps=cfg.trainer.save_every)
    figures_of_data = DataFigures(rejects=datamodule.rejects)
    watching = [state, figures_of_data, *callbacks(job, building, assistant, data)]
    with tracking(job, building, config) as loggers:
        trainer = build_trainer(job, building, loggers, watching)
        figures = train(trainer, module, datamodule, state)
    if trainer.is_global_zero:
        save(assistant, building.path, spec=config["model"])
    rejects = datamodule.rejects
    if rejects.count:
        print(f"{rejects.count} groups rejected, first {rejects.first}", flush=True)
    return figures | rejects.metrics(), state.stop_requested


def build_module(
    job: Job, assistant: Assistant, *, reward: Artifact | None, scorer: RewardScorer | None
) -> AlignmentModule:
    cfg = job.cfg
    training = {
        "optimizer": instantiate(cfg.optimizer, _convert_="all"),
        "scheduler": partial(
            warmup_cosine,
            warmup_steps=cfg.trainer.warmup_steps,
            max_steps=cfg.trainer.max_steps,
            final=cfg.trainer.final_lr,
        ),
        "gradient_clip": cfg.trainer.gradient_clip,
    }
    objective: Any = instantiate(cfg.objective)
    if scorer is not None:
        assert reward is not None
        return policy_module(
            job, assistant, objective, reward=reward, scorer=scorer, training=training
        )
    objective.start(assistant.model)
    return AlignmentModule(model=assistant.model, objective=objective, **training)


def train(
    trainer: L.Trainer, module: AlignmentModule, datamodule: ShardDataModule, state: TrainState
) -> dict[str, float]:
    """Fit from the last state, if there is one; return the figures of the final weights."""
    state.check()
    try:
        trainer.fit(module, datamodule, ckpt_path=state.resume_path(), weights_only=True)
        figures = state.figures | final_metrics(trainer)
        batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        if not any(n.startswith("val/") for n in figures) or batches % trainer.val_check_interval:
            trainer.validate(module, datamodule, verbose=False)  # forgets those of training
            figures |= final_metrics(trainer)
        return figures
    except NonFiniteStep as error:
        raise InputError(
            f"{error}; {error.remedy} (the last state that was saved is kept)."
        ) from error
    except InputError as error:
        if state.resume_path() is None:
            raise
        fault = str(error).removesuffix(".")
        raise InputError(f"{fault}; the same command goes on from the last state.") from error


def starting_point(job: Job, config: Mapping[str, Any], *, init: Artifact | None) -> Assistant:
    """Build the model with its parent's weights, tokenizer and template, or from scratch."""
    spec = config["model"]
    if init is None:
        tokenizer = root_tokenizer(job, spec["tokenizer"])
        model = build_model(spec, tokenizer=tokenizer)
        return assemble(config, model=model, tokenizer=tokenizer)
    tokenizer = artifact_tokenizer(init)
    model = build_model(spec, tokenizer=tokenizer)
    restore(model, init, spec=spec)
    return assemble(config, model=model, tokenizer=tokenizer)


def root_tokenizer(job: Job, spec: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """Take the LM's own tokenizer, or train one on the texts of the source."""
    if spec["name"]:
        return load_tokenizer(spec["name"])
    source = instantiate(job.cfg.source, _convert_="all")
    return train_tokenizer(source.texts(), vocab_size=spec["vocab_size"])


def build_datamodule(
    job: Job,
    assistant: Assistant,
    data: ShardSet,
    others: Mapping[str, ShardSet],
    *,
    scorer: RewardScorer | None = None,
) -> ShardDataModule:
    node = job.cfg.datamodule
    extra: dict[str, Any] = {"processor": assistant.processor}
    if job.cfg.objective.requires == "feedback":
        extra |= {"condition": assistant.condition, "seed": job.cfg.seed}
    if scorer is not None:
        extra |= {"room": job.cfg.objective.rollouts.max_new_tokens, "judged": scorer.check}
    encoder = instantiate(node.encoder, **extra)
    collator: Any = (
        collate_prompts
        if scorer is not None
        else TreeCollator(
            pad_token_id=assistant.model.pad_token_id,
            image_token_id=assistant.model.image_token_id,
            num_image_tokens=assistant.processor.num_image_tokens,
            share_prefixes=node.share_prefixes and assistant.model.trees,
            rows_per_batch=node.rows_per_batch,
            row_tokens=node.row_tokens,
            pad_to_multiple=node.pad_to_multiple,
            one_row=assistant.model.trees
            and attends_in_blocks(assistant.model.language, device(job.cfg.trainer)),
        )
    )
    return ShardDataModule(
        directory=data.location,
        encoder=encoder,
        collator=collator,
        groups_per_step=node.groups_per_step,
        seed=job.cfg.seed,
        window=node.window,
        num_workers=node.num_workers,
        max_rejects=job.cfg.data.max_rejects,
        others=[(other.location, node.mixture[name].weight) for name, other in others.items()],
        weight=node.weight,
        when_dry=node.when_dry,
        cache=cache(job.cfg),
    )


def build_trainer(
    job: Job, building: Building, loggers: Sequence[Logger], watching: Sequence[L.Callback]
) -> L.Trainer:
    settings = job.cfg.trainer
    several = settings.devices > 1  # the processes run already (launch.py, torchrun)
    return L.Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy="ddp" if several else "auto",
        plugins=[TorchElasticEnvironment()] if several else None,
        precision=settings.precision,
        max_steps=settings.max_steps,
        max_epochs=-1,
        val_check_interval=settings.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=settings.log_every,
        logger=loggers,
        callbacks=list(watching),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=str(building.path),
    )


def final_metrics(trainer: L.Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}
