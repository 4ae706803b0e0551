"""Refuse settings that are each valid and cannot go together, before anything is built."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from inspect import getsourcefile, getsourcelines
from typing import Any, Literal

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from dress.errors import InputError
from dress.feedback.endpoint import NO_GUIDANCE
from dress.jobs.data_sets import mixed
from dress.modeling.specification import (
    check_quantization,
    check_tokenizer,
    check_trainable,
    not_from_random,
)
from dress.records import Requires
from dress.settings import check_value

AUTO = "auto"  # of datamodule.rows_per_batch: what job=plan finds to fit
FSDP = "fsdp"  # of trainer.strategy: FSDP2, where Lightning's own has the first version
Strategy = Literal["auto", "ddp", "ddp_find_unused_parameters_true", "fsdp"]
DATAMODULES: Mapping[Requires, str] = {  # options of the group, by the kind of their records
    "dialogues": "instructions",
    "feedback": "feedback",
    "preferences": "preferences or judged",
    "prompts": "prompts",
}
READERS = {  # nodes and keys that some jobs alone read
    "artifact": ("evaluate", "annotate", "export", "chat"),
    "export": ("export",),
    "chat": ("chat", "annotate"),
    "responses": ("evaluate",),
    **dict.fromkeys(("part", "verify", "stats"), ("shards",)),
    **dict.fromkeys(("reward_from", "rounds", "compare", "interaction"), ("train",)),
    **dict.fromkeys(("stage", "optimizer", "objective", "datamodule"), ("train", "plan")),
    "plan": ("plan", "train"),
}
SHARED = {  # the same of nodes that the commands of a chain have in common: others ignore them
    **dict.fromkeys(("data", "source"), ("annotate", "shards", "train")),
    "annotator": ("annotate", "shards", "train", "chat"),
    **dict.fromkeys(("trainer", "module"), ("train", "plan")),
    **dict.fromkeys(("scheduler", "callbacks", "logger"), ("train",)),
    **dict.fromkeys(("benchmark", "generation", "judge"), ("evaluate", "train")),
    "feedback": ("annotate", "train"),
    "sampler": ("annotate", "evaluate"),
    "shards": ("shards", "annotate", "train"),
    "report": ("report", "train"),
}

INSTEAD = (  # keys of the trainer, what leaves them alone, and what to give in their place
    (
        "accumulate_grad_batches",
        1,
        "a step is cut up by datamodule.rows_per_batch, which changes no number",
    ),
    ("gradient_clip_val", None, "give module.gradient_clip"),
    ("gradient_clip_algorithm", None, "give module.gradient_clip, which bounds the norm"),
    ("max_epochs", -1, "give trainer.max_steps"),
    (
        "callbacks",
        None,
        "give callbacks=[default,early_stopping] or +callbacks.<name>._target_=...",
    ),
    ("logger", None, "give logger=[default,csv] or +logger.<name>._target_=..."),
)
PACKAGES = {  # what classes of Lightning need and Lightning does not bring
    "TensorBoardLogger": "tensorboard",
    "MLFlowLogger": "mlflow",
    "DeviceStatsMonitor": "psutil",
}


def check_together(cfg: DictConfig) -> None:
    """Raise InputError at settings that contradict each other, whoever set them."""
    if cfg.generation.guidance and cfg.generation.temperature:
        raise InputError(
            "generation.guidance needs greedy decoding: give generation.temperature=0."
        )
    if (one_tile := cfg.model.get("one_tile")) is not None:
        check_value("model.one_tile", one_tile, bool)
    if cfg.job.name in ("train", "plan"):
        spec: Any = OmegaConf.to_container(cfg.model, resolve=True)
        check_trainable(spec, cfg.stage)
        check_quantization(spec, cfg.stage)
        check_tokenizer(spec)
        check_optimizer(cfg, spec)
        check_reference(cfg)
        check_sharding(cfg)
        check_gap(cfg)
        check_records(cfg)
        check_trainer(cfg)


def check_typed(cfg: DictConfig, typed: Mapping[str, Any]) -> None:
    """Raise InputError at what was typed and would not be read beside the other settings."""
    given = {key: value for key, value in typed.items() if value is not None}
    for key in given:
        is_choice = OmegaConf.is_dict(cfg.get(key))  # of a group, which may be meant for all jobs
        jobs = READERS.get(key.partition(".")[0], (cfg.job.name,))
        if not is_choice and cfg.job.name not in jobs:
            others = " or ".join(f"job={name}" for name in jobs)
            raise InputError(f"{key} is not read by job={cfg.job.name}: give {others}.")
    if "reward_from" in given and records_needed(cfg) != "prompts":
        raise InputError("reward_from is not read by this objective: give objective=ppo or grpo.")
    if "artifact" in given and cfg.job.name == "annotate" and cfg.feedback.responses != "sampled":
        raise InputError(
            "artifact is not read with feedback.responses=captions, which takes ready responses: "
            "give feedback.responses=sampled."
        )
    if cfg.job.name in SHARED["feedback"]:
        check_people(cfg)
    if cfg.sampler.get("_target_") is not None:
        check_endpoint(cfg)
    for part in ("vision", "language"):
        check_weights(cfg, part, given)


def check_people(cfg: DictConfig) -> None:
    """Refuse dialogues of several turns, for each of which the page would open anew."""
    people = cfg.annotator.get("_target_") == "dress.page.human.HumanAnnotator"
    if people and cfg.feedback.responses == "sampled" and cfg.feedback.turns > 1:
        raise InputError(
            "annotator=human judges one answer to each question and hears no refinements in turn: "
            "give feedback=single, or annotator=oracle, rules or llm."
        )


def check_endpoint(cfg: DictConfig) -> None:
    """Refuse responses of a server beside other responses, and in a job that asks for none."""
    if cfg.job.name not in SHARED["sampler"]:
        raise InputError(
            f"sampler=endpoint is not read by job={cfg.job.name}: give job=annotate or "
            "job=evaluate; training takes its groups by datamodule.shards=<folder>."
        )
    if cfg.artifact:
        raise InputError("artifact and sampler=endpoint are both set: give one of them.")
    if cfg.job.name == "annotate" and cfg.feedback.responses != "sampled":
        raise InputError(
            "sampler=endpoint is not read with feedback.responses=captions, which takes ready "
            "responses: give feedback.responses=sampled."
        )
    if cfg.job.name == "evaluate" and cfg.generation.guidance:
        raise InputError(NO_GUIDANCE)


def is_read_by(job: str, key: str) -> bool:
    """Tell whether a job, or a parent that it builds, reads a key or a node."""
    jobs = (READERS | SHARED).get(key.partition(".")[0])
    return jobs is None or job in jobs


def check_weights(cfg: DictConfig, part: str, given: Mapping[str, Any]) -> None:
    """Refuse the name of weights that are not read, and a shape beside weights that are."""
    node, random = f"model.{part}", cfg.model[part].random_init
    typed = {f"{node}.random_init", "model.random_init"} & given.keys()
    if random and (typed or cfg.init_from == "random"):
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
    if cached and (processes_of(cfg) > 1 or mixed(cfg)):
        raise InputError(
            "objective.reference=cached is for one device and one data set: give "
            "objective.reference=step."
        )


def processes_of(cfg: DictConfig) -> int:
    """Return how many processes train together."""
    number: int = cfg.trainer.devices * cfg.trainer.num_nodes
    return number


def check_sharding(cfg: DictConfig) -> None:
    strategy = cfg.trainer.get("strategy")
    if isinstance(strategy, str):
        check_value("trainer.strategy", strategy, Strategy)
    if strategy != FSDP:
        return
    refused = (
        (
            processes_of(cfg) == 1,
            "shares the weights among ranks: give trainer.devices=2 or more",
        ),
        (
            cfg.model.language.get("quantization"),
            "cannot share weights in 4 bits: give model.language.quantization=null",
        ),
    )
    for found, why in refused:
        if found:
            raise InputError(f"trainer.strategy=fsdp {why}.")


def check_gap(cfg: DictConfig) -> None:
    """Refuse a gap where sequences that share tokens could differ in where their answers begin."""
    encoder = cfg.datamodule.encoder
    alike = encoder._target_.endswith(".InstructionEncoder") and encoder.loss_turns == "all"
    if cfg.datamodule.answer_gap and not alike:
        raise InputError(
            "datamodule.answer_gap is for dialogues with loss on all turns: give "
            "datamodule=instructions and datamodule.encoder.loss_turns=all, or "
            "datamodule.answer_gap=0."
        )


def check_records(cfg: DictConfig) -> None:
    needed = records_needed(cfg)
    given = get_class(cfg.datamodule.encoder._target_).requires  # type: ignore[attr-defined]
    if needed != given:
        where = _declared_at(cfg)
        raise InputError(
            f"the objective needs records with {needed} ({where}), the datamodule gives {given}: "
            f"give datamodule={DATAMODULES[needed]}, or correct {where}."
        )


def records_needed(cfg: DictConfig) -> Requires:
    """Return the kind of record that the objective declares, or is told to take."""
    objective: Any = get_class(cfg.objective._target_)
    needed = cfg.objective.get("requires") or getattr(objective, "requires", None)
    for kind in DATAMODULES:
        if kind == needed:
            return kind
    raise InputError(
        f"{cfg.objective._target_} requires {needed!r}, which is no kind of record: write requires "
        f"with one of {', '.join(DATAMODULES)} at {_declared_at(cfg)}."
    )


def _declared_at(cfg: DictConfig) -> str:
    """Name the key, or the file and line, that says which records the objective needs."""
    if "requires" in cfg.objective:
        return "objective.requires"
    objective = get_class(cfg.objective._target_)
    declaring = next((c for c in objective.__mro__ if "requires" in vars(c)), objective)
    lines, first = getsourcelines(declaring)
    found = (n for n, line in enumerate(lines) if re.match(r"\s+requires\b", line))
    return f"{getsourcefile(declaring)}, line {first + next(found, 0)}"


def check_trainer(cfg: DictConfig) -> None:
    """Refuse what a Lightning user would try and what has another name here."""
    for key, unset, instead in INSTEAD:
        if cfg.trainer.get(key, unset) != unset:
            raise InputError(f"trainer.{key} is not used here: {instead}.")
    for group in ("callbacks", "logger"):
        for name, entry in cfg[group].items():
            if entry is not None and not (OmegaConf.is_dict(entry) and "_target_" in entry):
                raise InputError(
                    f"{group}.{name} is {entry}: give {group}.{name}._target_=<class>, or null to "
                    "leave it out."
                )
            check_package(f"{group}.{name}", entry)
    if cfg.callbacks.get("train_state") is None:
        raise InputError(
            "callbacks.train_state is missing, which keeps the state that a run resumes from: give "
            "callbacks=[none,...] or callbacks=[default,...]."
        )
    needs_policy = records_needed(cfg) == "prompts"
    if needs_policy != str(cfg.module._target_).startswith("lit_modules.policy."):
        module = "policy" if needs_policy else "alignment"
        raise InputError(f"this objective is trained by another module: give module={module}.")


def check_package(key: str, entry: Mapping[str, Any] | None) -> None:
    """Refuse a class whose package is missing now, not when it is built after the parents."""
    package = PACKAGES.get(str(entry["_target_"]).rpartition(".")[2]) if entry else None
    if package and find_spec(package) is None:
        raise InputError(f"{key} needs a package that is missing: pip install {package}.")
