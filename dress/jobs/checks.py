"""Refuse a configuration that cannot work before anything is read or built."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dress.errors import InputError
from dress.jobs.contradictions import check_together
from dress.jobs.data_sets import check_locations
from dress.targets import foreign_target
from dress.wandb_mode import wandb_mode

CHOICES: dict[str, Sequence[str]] = {
    "parents": ("build", "require"),
    "feedback.responses": ("sampled", "captions"),
    "logger.wandb.mode": ("auto", "online", "offline", "disabled"),
    "trainer.accelerator": ("cpu", "gpu", "auto"),
    "annotator.detail": ("hint", "reveal"),
    "objective.reference": ("step", "cached"),
    "datamodule.when_dry": ("repeat", "stop", "reweight"),
    **{
        f"{node}.{key}": choices
        for node in ("benchmark", "interaction")
        for key, choices in (
            ("detail", ("hint", "reveal")),
            ("feedback", ("oracle", "other", "empty", "repeat")),
        )
    },
    "annotator.critique": ("objects", "kinds"),
    "annotator.show": ("annotation", "image"),
    "trainer.precision": ("32-true", "bf16-mixed"),
    "matmul_precision": ("auto", "highest", "high", "medium"),
}
LEAST_INTEGERS = {
    "seed": 0,
    "rounds": 1,
    "trainer.max_steps": 1,
    "scheduler.warmup_steps": 0,
    "trainer.val_check_interval": 1,
    "callbacks.train_state.every_n_steps": 1,
    "trainer.log_every_n_steps": 1,
    "data.sizes.captions": 1,
    "data.sizes.instructions": 1,
    "data.sizes.prompts": 1,
    "datamodule.groups_per_step": 1,
    "datamodule.window": 1,
    "datamodule.rows_per_batch": 1,
    "datamodule.row_tokens": 1,
    "datamodule.pad_to_multiple": 1,
    "datamodule.num_workers": 0,
    "trainer.devices": 1,
    "feedback.samples": 1,
    "feedback.max_new_tokens": 1,
    "feedback.batch_size": 1,
    "generation.max_new_tokens": 1,
    "generation.batch_size": 1,
    "benchmark.scenes": 1,
    "benchmark.turns": 1,
    "interaction.scenes": 1,
    "interaction.turns": 1,
    "feedback.prompts": 1,
    "feedback.chunk": 1,
    "feedback.parts": 1,
    "feedback.part": 0,
    "feedback.turns": 1,
    "feedback.candidates": 1,
    "callbacks.sample_table.rows": 0,
    "callbacks.condition_ratings.prompts": 0,
    "shards.workers": 0,
    "shards.pictures": 0,
    "annotator.concurrency": 1,
    "annotator.max_retries": 0,
    "annotator.max_tokens": 1,
    "judge.concurrency": 1,
    "judge.max_retries": 0,
    "judge.max_tokens": 1,
    "judge.max_failures": 0,
    "benchmark.limit": 1,
}
BOUNDS = {  # least and most, both allowed
    "generation.guidance": (0.0, float("inf")),
    "feedback.temperature": (0.0, float("inf")),
    "generation.temperature": (0.0, float("inf")),
    "feedback.top_p": (0.0, 1.0),
    "feedback.false_share": (0.0, 1.0),
    "condition.dropout": (0.0, 1.0),
    "condition.aspect_dropout": (0.0, 1.0),
    "datamodule.cache.gigabytes": (0.001, float("inf")),
    "data.noise": (0.0, 1.0),
    "annotator.temperature": (0.0, float("inf")),
    "annotator.timeout_s": (0.001, float("inf")),
    "judge.temperature": (0.0, float("inf")),
    "judge.timeout_s": (0.001, float("inf")),
    "data.cooccurrence": (0.0, 1.0),
    "data.validation_share": (0.0, 1.0),
    "data.max_rejects": (0.0, float("inf")),
    "optimizer.lr": (0.0, float("inf")),
    "optimizer.weight_decay": (0.0, float("inf")),
    "scheduler.final_lr": (0.0, 1.0),
    "module.gradient_clip": (0.0, float("inf")),
}


def check(cfg: DictConfig) -> None:
    """Raise InputError at the first setting that is missing, of the wrong type or out of range."""
    check_given(cfg)
    for key, choices in CHOICES.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and value not in choices:
            raise InputError(f"{key} is {value!r}: choose {' or '.join(choices)}.")
    for key, least in LEAST_INTEGERS.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and not (_is_number(value, int) and value >= least):
            raise InputError(f"{key} is {value!r}: give a whole number, {least} or more.")
    for key, (low, high) in BOUNDS.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and not (_is_number(value, int | float) and low <= value <= high):
            upto = "or more" if high == float("inf") else f"to {high:g}"
            raise InputError(f"{key} is {value!r}: give a number, {low:g} {upto}.")
    if (cfg.feedback.part or 0) >= cfg.feedback.parts:
        raise InputError(
            f"feedback.part is {cfg.feedback.part}: there are feedback.parts={cfg.feedback.parts}, "
            "counted from 0."
        )
    check_code(cfg)
    check_compare(cfg)
    check_devices(cfg)
    check_mixture(cfg)
    check_locations(cfg)
    check_targets(cfg)
    check_together(cfg)
    if wandb := cfg.logger.get("wandb"):
        wandb_mode(wandb.mode)


def check_given(cfg: DictConfig) -> None:
    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise InputError(f"{key} is not set: give {key}=<value>.")


def check_code(cfg: DictConfig) -> None:
    """Refuse code that an artifact could not name either."""
    if (target := foreign_target(OmegaConf.to_container(cfg))) is not None:
        raise InputError(
            f"_target_={target} is foreign code: name a class of dress, lit_modules, datamodules, "
            "torch.optim or Lightning, and wrap another one there."
        )


def check_compare(cfg: DictConfig) -> None:
    for entry in cfg.compare:
        known = (
            {"label", "role", "target"} <= set(entry) <= {"label", "role", "target", "benchmark"}
        )
        role, on = entry.get("role"), entry.get("benchmark", "benchmark")
        if not known or role not in ("self", "init") or on not in ("benchmark", "interaction"):
            raise InputError(
                "an entry of compare needs label, target, role (self or init) and, where it is "
                "not the plain one, benchmark (interaction)."
            )


def check_devices(cfg: DictConfig) -> None:
    groups = cfg.datamodule.groups_per_step
    if cfg.job.name == "train" and cfg.trainer.devices > groups:
        raise InputError(
            f"trainer.devices is {cfg.trainer.devices} and datamodule.groups_per_step {groups}: "
            "give each device at least one group per step."
        )


def check_processes(cfg: DictConfig) -> None:
    """Refuse processes that would wait for each other's artifacts."""
    processes = world_size()
    if processes == 1:
        return
    if cfg.job.name != "train" or cfg.trainer.devices != processes:
        raise InputError(
            f"{processes} processes were started for job={cfg.job.name} and trainer.devices="
            f"{cfg.trainer.devices}: start one, or for job=train as many as trainer.devices."
        )
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise InputError("a sweep was started in several processes: give trainer.devices instead.")


def world_size() -> int:
    """Return how many processes were started together, by torchrun or by launch.py."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_mixture(cfg: DictConfig) -> None:
    for name, entry in cfg.datamodule.mixture.items():
        if not OmegaConf.is_dict(entry) or set(entry) != {"artifact", "weight"}:
            raise InputError(
                f"datamodule.mixture.{name} is {entry}: give artifact=<directory or URL> and "
                "weight=<number>."
            )
    weights = {f"mixture.{name}.weight": e.weight for name, e in cfg.datamodule.mixture.items()}
    for key, weight in ({"weight": cfg.datamodule.weight} | weights).items():
        if not (_is_number(weight, int | float) and 0 < weight < float("inf")):
            raise InputError(f"datamodule.{key} is {weight!r}: give a number above 0.")


def check_targets(cfg: DictConfig) -> None:
    """Refuse a wrong target now, not when a model is there to be asked."""
    from dress.chat.condition import Condition

    if not OmegaConf.is_list(cfg.feedback.targets):
        raise InputError(f"feedback.targets is {cfg.feedback.targets!r}: give a list, [best,none].")
    for target in (
        cfg.condition.target,
        cfg.generation.contrast,
        *cfg.feedback.targets,
        *(entry.target for entry in cfg.compare),
    ):
        Condition(form=cfg.condition.form).target(str(target))


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
