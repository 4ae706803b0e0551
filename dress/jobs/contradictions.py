"""Refuse settings that are each valid and cannot go together, before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from dress.errors import InputError
from dress.modeling.specification import check_tokenizer, check_trainable, not_from_random

READERS = {  # nodes and keys that some jobs alone read
    "artifact": ("evaluate", "annotate"),
    "responses": ("evaluate",),
    **dict.fromkeys(("stage", "init_from", "reward_from", "rounds", "compare"), ("train",)),
    **dict.fromkeys(("optimizer", "objective", "datamodule", "interaction"), ("train",)),
    **dict.fromkeys(("benchmark", "generation", "judge"), ("evaluate", "train")),
    "feedback": ("annotate", "train"),
    **dict.fromkeys(("part", "verify", "stats"), ("shards",)),
    "shards": ("shards", "annotate", "train"),
    "report": ("report", "train"),
}
# nodes that groups of commands have in common, so that the other jobs may ignore them
SHARED = dict.fromkeys(("data", "source", "annotator"), ("annotate", "shards", "train"))


def check_together(cfg: DictConfig) -> None:
    """Raise InputError at settings that contradict each other, whoever set them."""
    if cfg.generation.guidance and cfg.generation.temperature:
        raise InputError(
            "generation.guidance needs greedy decoding: give generation.temperature=0."
        )
    if cfg.job.name == "train":
        spec: Any = OmegaConf.to_container(cfg.model, resolve=True)
        check_trainable(spec, cfg.stage)
        check_tokenizer(spec)
        check_optimizer(cfg, spec)
        check_reference(cfg)
        check_records(cfg)


def check_typed(cfg: DictConfig, typed: Mapping[str, Any]) -> None:
    """Raise InputError at what was typed and would not be read beside the other settings."""
    given = {key: value for key, value in typed.items() if value is not None}
    for key in given:
        is_choice = OmegaConf.is_dict(cfg.get(key))  # of a group, which may be meant for all jobs
        jobs = READERS.get(key.partition(".")[0], (cfg.job.name,))
        if not is_choice and cfg.job.name not in jobs:
            others = " or ".join(f"job={name}" for name in jobs)
            raise InputError(f"{key} is not read by job={cfg.job.name}: give {others}.")
    if "reward_from" in given and cfg.objective.requires != "prompts":
        raise InputError("reward_from is not read by this objective: give objective=ppo or grpo.")
    if "artifact" in given and cfg.job.name == "annotate" and cfg.feedback.responses != "sampled":
        raise InputError(
            "artifact is not read with feedback.responses=captions, which takes ready responses: "
            "give feedback.responses=sampled."
        )
    for part in ("vision", "language"):
        check_weights(cfg, part, given)


def is_read_by(job: str, key: str) -> bool:
    """Tell whether a job, or a parent that it builds, reads a key or a node."""
    jobs = (READERS | SHARED).get(key.partition(".")[0])
    return jobs is None or job in jobs


def check_weights(cfg: DictConfig, part: str, given: Mapping[str, Any]) -> None:
    """Refuse the name of weights that are not read, and a shape beside weights that are."""
    node, random = f"model.{part}", cfg.model[part].random_init
    if {f"{node}.random_init", "model.random_init"} & given.keys() and random:
        return  # the name then gives a shape
    for key in given:
        if random and key in (f"{node}.name", f"{node}.pretrained"):
            raise InputError(
                f"{key} is given and {node}.random_init is true, so that its weights are not read: "
                f"give {node}.random_init=false, or true to take its shape alone."
            )
        if not random and f"{key}.".startswith(f"{node}.config."):
            raise InputError(
                f"{key} is given and {node}.random_init is false, so that it is not read: give "
                f"{node}.random_init=true."
            )


def check_optimizer(cfg: DictConfig, spec: Mapping[str, Any]) -> None:
    part = not_from_random(spec, spec["trainable"][cfg.stage])
    if part and "muon" in str(cfg.optimizer._target_).lower():
        why = "an adapter" if part == "lora" else "released weights"
        raise InputError(
            f"optimizer=muon is for parts that train whole from random weights, and {part} "
            f"({why}) trains in {cfg.stage}: give optimizer=adamw."
        )


def check_reference(cfg: DictConfig) -> None:
    cached = cfg.objective.get("reference") == "cached"
    if cached and (cfg.trainer.devices > 1 or cfg.datamodule.mixture):
        raise InputError(
            "objective.reference=cached is for one device and one data set: give "
            "objective.reference=step."
        )


def check_records(cfg: DictConfig) -> None:
    needed = cfg.objective.requires
    given = get_class(cfg.datamodule.encoder._target_).requires  # type: ignore[attr-defined]
    if needed != given:
        raise InputError(
            f"the objective needs records with {needed}, the datamodule gives {given}: choose a "
            "datamodule that fits (instructions, feedback, preferences or prompts)."
        )
