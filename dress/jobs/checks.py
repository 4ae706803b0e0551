"""Refuse a configuration that cannot work before anything is read or built.

A value is checked by the signature of what takes it (dress/settings.py). Here stand the names of
those who take the nodes without a `_target_`, and rules on several keys.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from dress.chat.condition import Condition
from dress.errors import InputError
from dress.jobs.contradictions import AUTO, check_together, is_read_by, processes_of
from dress.jobs.data_sets import check_locations
from dress.jobs.keys import located, typed
from dress.settings import (
    AboveZero,
    Amount,
    Positive,
    Precision,
    Whole,
    check_value,
    check_values,
)
from dress.targets import foreign_targets, lies_in
from dress.wandb_mode import wandb_mode


@dataclass(frozen=True, kw_only=True)
class Top:
    """What every job reads at the top of the configuration."""

    seed: Whole
    rounds: Positive
    parents: Literal["build", "require"]
    fresh: bool
    matmul_precision: Literal["auto", "highest", "high", "medium"]


TAKEN_BY = {  # who takes the values of a node that names no `_target_`
    "": ("dress.jobs.checks.Top",),
    "data": ("dress.data.split.SplitWriter", "dress.data.rejects.Rejects"),
    "template": ("dress.chat.template.ChatTemplate",),
    "condition": ("dress.chat.condition.Condition",),
    "generation": ("dress.generation.Sampling",),
    "feedback": ("dress.generation.Sampling", "dress.generation.Responding"),
    "shards": ("dress.jobs.shards.Working",),
    "report": ("dress.jobs.report.Shown",),
    "export": ("dress.jobs.export.Exporting",),
    "plan": ("dress.jobs.plan.Planning",),
    "chat": ("dress.jobs.chat.ChatSettings",),
    "datamodule": (
        "dress.data.stream.GroupStream",
        "dress.data.stream.StepStream",
        "dress.data.stream.StepLoader",
        "dress.data.collate.TreeCollator",
        "dress.data.mixture.Mixture",
    ),
    "datamodule.cache": ("dress.data.stores.cache.shard_cache",),
}
OF_LIGHTNING = ("trainer", "module", "scheduler", "callbacks", "logger")
BUILT_EARLY = ("objective", "source", "benchmark", "interaction", "sampler")  # they cost nothing


def check(cfg: DictConfig) -> None:
    """Raise InputError at the first setting that is missing, of the wrong type or out of range."""
    check_given(cfg)
    check_settings(cfg)
    check_others(cfg)
    check_parts(cfg)
    check_compare(cfg)
    check_devices(cfg)
    check_mixture(cfg)
    check_locations(cfg)
    check_targets(cfg)
    check_together(cfg)
    check_constructors(cfg)
    check_lightning(cfg)
    if wandb := cfg.logger.get("wandb"):
        wandb_mode(wandb.mode)


def check_given(cfg: DictConfig) -> None:
    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise InputError(f"{key} is not set: give {key}=<value>.")


def check_code(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse code that an artifact could not name either, unless its package was typed."""
    packages = own_packages(cfg, overrides)
    for target in foreign_targets(OmegaConf.to_container(cfg)):
        if not lies_in(target, packages):
            raise InputError(
                f"_target_={target} is foreign code: name a class of dress, lit_modules, "
                "datamodules, torch.optim or Lightning, or of a package of your own that "
                "packages=[<name>] allows."
            )


def own_packages(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Return the packages, or modules, that were typed for this command."""
    packages = typed(overrides).get("packages", [])
    if packages != cfg.packages:
        raise InputError("packages is set in a YAML file: type packages=[<name>] instead.")
    check_value("packages", packages, Sequence[str])
    return packages


def find_own_packages(cfg: DictConfig) -> None:
    """Let packages of the user's own be imported from the folder in which the command runs."""
    if cfg.packages and (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # behind what is installed


def check_settings(cfg: DictConfig) -> None:
    """Compare every value that the job reads with the type that its constructor declares."""
    for node, names in TAKEN_BY.items():
        if is_read_by(cfg.job.name, node):
            for name in names:
                _check_node(cfg, node, get_object(name))
    _check_targets(cfg, lightning=False)


def check_lightning(cfg: DictConfig) -> None:
    """Do the same for the nodes whose classes import Lightning, which takes seconds."""
    _check_targets(cfg, lightning=True)


def _check_targets(cfg: DictConfig, *, lightning: bool) -> None:
    for node in _with_target(OmegaConf.to_container(cfg, resolve=False)):
        of_lightning = node.partition(".")[0] in OF_LIGHTNING
        if of_lightning == lightning and is_read_by(cfg.job.name, node):
            name = OmegaConf.select(cfg, f"{node}._target_")
            _check_node(cfg, node, located(name, node))


def _with_target(plain: Any, key: str = "") -> Iterator[str]:
    """Yield the nodes that name a `_target_`; one that refers to another is found there."""
    for name, value in plain.items():
        node = f"{key}.{name!s}".lstrip(".")
        if isinstance(value, dict):
            if value.get("_target_"):
                yield node
            yield from _with_target(value, node)


def _check_node(cfg: DictConfig, node: str, taker: Any) -> None:
    values = OmegaConf.select(cfg, node) if node else cfg
    raw: Any = OmegaConf.to_container(values, resolve=False)
    taken = {name: _plain(values[name]) for name in signature(taker).parameters if name in raw}
    if node == "datamodule" and taken.get("rows_per_batch") == AUTO:
        del taken["rows_per_batch"]  # a number by the time that anything takes it
    check_values(taker, taken, key_of=lambda name: _typed(raw, node, name))


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _typed(raw: Mapping[str, Any], node: str, name: str) -> str:
    """Name a key as it was typed: where a value refers to another one, that is the other."""
    value = str(raw[name])
    if value.startswith("${") and value[2:-1].replace(".", "").isidentifier():
        return value[2:-1]
    return f"{node}.{name}".lstrip(".")


def check_constructors(cfg: DictConfig) -> None:
    """Build what costs nothing to build, for what only a whole constructor can tell."""
    for node in BUILT_EARLY:
        if is_read_by(cfg.job.name, node) and cfg[node].get("_target_"):
            try:
                instantiate(cfg[node], _convert_="all")
            except InstantiationException as error:
                if isinstance(error.__cause__, InputError):
                    raise error.__cause__ from None
                raise


def check_planned_rows(cfg: DictConfig, given: Mapping[str, Any]) -> None:
    """Refuse settings of the plan that a training asks nothing of."""
    plain = cfg.datamodule.rows_per_batch != AUTO
    for key in (key for key in given if key.startswith("plan.")):
        if plain or (key == "plan.gpu" and cfg.trainer.accelerator == "cpu"):
            raise InputError(
                f"{key} is not read by job=train: give job=plan, or datamodule.rows_per_batch=auto "
                "(and for plan.gpu trainer=gpu)."
            )


def check_parts(cfg: DictConfig) -> None:
    if (cfg.feedback.part or 0) >= cfg.feedback.parts:
        raise InputError(
            f"feedback.part is {cfg.feedback.part}: there are feedback.parts={cfg.feedback.parts}, "
            "counted from 0."
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
    groups, processes = cfg.datamodule.groups_per_step, processes_of(cfg)
    if cfg.job.name == "train" and processes > groups:
        key = "trainer.devices" if cfg.trainer.num_nodes == 1 else "trainer.devices * num_nodes"
        raise InputError(
            f"{key} is {processes} and datamodule.groups_per_step {groups}: give each device at "
            "least one group per step."
        )


def check_processes(cfg: DictConfig) -> None:
    """Refuse processes that would wait for each other's artifacts."""
    processes, nodes = world_size(), cfg.trainer.num_nodes
    if processes == 1:
        if nodes > 1 and cfg.job.name == "train":
            raise InputError(
                f"trainer.num_nodes is {nodes} and one process was started: start torchrun "
                "--nnodes on each host, or srun (docs/scale.md)."
            )
        return
    if cfg.job.name != "train" or processes_of(cfg) != processes:
        raise InputError(
            f"{processes} processes were started for job={cfg.job.name}, trainer.devices="
            f"{cfg.trainer.devices} and trainer.num_nodes={nodes}: start one, or for job=train as "
            "many as devices * num_nodes."
        )
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        if "submitit" not in HydraConfig.get().launcher._target_:  # whose tasks belong to one job
            raise InputError("a sweep was started in several processes: give trainer.devices.")


def world_size() -> int:
    """Return how many processes were started together, by torchrun, SLURM or processes.py."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_mixture(cfg: DictConfig) -> None:
    for name, entry in cfg.datamodule.mixture.items():
        known = {"artifact", "weight", "encoder"}
        whole = OmegaConf.is_dict(entry) and "weight" in entry and set(entry) <= known
        if not whole or not (entry.get("artifact") or cfg.lineage.get(name)):
            raise InputError(
                f"datamodule.mixture.{name} is {entry}: give artifact=<directory or URL> and "
                "weight=<number>, and encoder=<node> where its records are encoded otherwise."
            )
        check_value(f"datamodule.mixture.{name}.weight", entry.weight, Amount)  # 0 leaves it out
    check_value("datamodule.weight", cfg.datamodule.weight, AboveZero)


def check_targets(cfg: DictConfig) -> None:
    """Refuse a wrong target now, not when a model is there to be asked."""
    for target in (
        cfg.condition.target,
        cfg.export.condition,
        cfg.generation.contrast,
        *cfg.feedback.targets,
        *(entry.target for entry in cfg.compare),
    ):
        Condition(form=cfg.condition.form).target(str(target))


OTHERS: Mapping[str, Any] = {  # what classes of torch and Lightning take
    "optimizer.lr": Amount,
    "optimizer.weight_decay": Amount,
    "trainer.accelerator": Literal["cpu", "gpu", "auto"],
    "trainer.precision": Precision,
    "trainer.devices": Positive,
    "trainer.num_nodes": Positive,
    "trainer.max_steps": Positive,
    "trainer.val_check_interval": Positive,
    "trainer.log_every_n_steps": Positive,
}


def check_others(cfg: DictConfig) -> None:
    for key, hint in OTHERS.items():
        if is_read_by(cfg.job.name, key) and (value := OmegaConf.select(cfg, key)) is not None:
            check_value(key, value, hint)
