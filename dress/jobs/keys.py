"""Which keys a command may set: those that a YAML declares, a constructor takes or a job reads."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from inspect import signature
from typing import Any

import yaml
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from dress.errors import InputError
from dress.jobs.mistyped import CONF, leaves, unknown_option, unread
from dress.targets import OURS

CONSTRUCTORS = {  # of nodes that name none themselves
    "model.vision": "dress.modeling.vision.open_clip_tower",
    "model.vision.config": "open_clip.CLIPVisionCfg",
    "model.language": "dress.modeling.language.causal_lm",
    "model.language.lora": "dress.modeling.language.add_lora",
    "template": "dress.chat.template.ChatTemplate",
}
GIVEN_BY_JOBS = {"vocab_size", "language", "in_dim", "out_dim", "params", "processor"}
READ_BY_JOBS: Mapping[str, Collection[str]] = {
    "lineage": ("init", "data", "model", "prompts", "candidates", "reward"),
    "model": ("scalar_head",),
}
COMPOSITION_ERRORS = (ConfigCompositionException, OverrideParseException)
MEANINGS = {  # what Hydra says at length
    r"Ambiguous value for argument '(.*)'": (
        "gives several values: add -m to run each of them, or write [a,b] for a list"
    ),
    r"already at '(.*?)'": "is set already: leave out the +",
    r"(\S+) appears more than once": "is chosen already: leave out the +",
    r"Multiple values for (\S+)\.": "is chosen already: leave out the +",
}
PLUGINS = {  # packages that bring options of Hydra's own groups
    "hydra/sweeper=optuna": "hydra-optuna-sweeper",
    "hydra/launcher=submitit_local": "hydra-submitit-launcher",
    "hydra/launcher=submitit_slurm": "hydra-submitit-launcher",
}
OF_A_STAGE = ("model.trainable", "data.steps", "data.groups_per_step")


def check_keys(cfg: DictConfig, choices: Mapping[str, str | None]) -> None:
    """Raise InputError at a key that the chosen options of the groups lack and nothing reads.

    `choices` are Hydra's: group -> option. What an experiment alone sets counts as typed.
    """
    options = {
        group: option
        for group, option in choices.items()
        if option and group != "experiment" and (CONF / group.partition("@")[0]).is_dir()
    }
    declared = compose("run", [f"{group}={option}" for group, option in options.items()])
    raw, raw_declared = (OmegaConf.to_container(c, resolve=False) for c in (cfg, declared))
    here, there = dict(leaves(raw)).keys(), dict(leaves(raw_declared)).keys()
    interpolated = set(re.findall(r"\$\{([\w.]+)\}", yaml.safe_dump(raw)))
    for key in sorted(here - there - interpolated):
        if not is_read(cfg, key):
            raise InputError(unread(key))
    for key in sorted(there - here):
        node = key.rpartition(".")[0]
        kept = OmegaConf.is_dict(OmegaConf.select(cfg, node)) if node else False
        if kept and _constructor(cfg, node) is None:  # one has a default, perhaps
            raise InputError(f"{key} was removed and is read: leave out ~{key}.")


def typed(overrides: Sequence[str]) -> dict[str, Any]:
    """Return what was typed, by key or group; a mapping counts by its leaves."""
    found: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        value = None if override.is_delete() else override.value()
        found |= dict(leaves(value, override.key_or_group))
    return found


def is_read(cfg: DictConfig, key: str) -> bool:
    """Whether what reads the nearest node above the key takes it there."""
    if key.startswith("datamodule.mixture.") or re.fullmatch(r"(callbacks|logger)\.\w+", key):
        return True  # these entries have a check of their own
    parts = key.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        names = _names(cfg, ".".join(parts[:depth]))
        if names is not None:
            return parts[depth] in names or parts[depth].startswith("_")
    return False


def _names(cfg: DictConfig, node: str) -> Collection[str] | None:
    """Return the keys that are read in a node; None where the node above decides."""
    if node in OF_A_STAGE:
        return (str(cfg.stage),)
    if node == "model.language.config":
        shape_keys: Any = get_object("dress.modeling.language.shape_keys")
        return shape_keys(OmegaConf.select(cfg, f"{node}.model_type"))
    if (constructor := _constructor(cfg, node)) is None:
        return READ_BY_JOBS.get(node)
    return set(signature(get_object(constructor)).parameters) - GIVEN_BY_JOBS


def _constructor(cfg: DictConfig, node: str) -> str | None:
    """Name what a node is the keywords of; foreign code is refused elsewhere and not imported."""
    named = OmegaConf.select(cfg, f"{node}._target_")
    if named and OURS.fullmatch(named):
        return str(named)
    if node == "model.projector":
        return f"dress.modeling.build.{cfg.model.projector.kind}_projector"
    return CONSTRUCTORS.get(node)


def composition_sentence(error: Exception) -> str:
    """Say in one sentence what Hydra says in several lines of a command that does not compose."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if (package := PLUGINS.get(f"{group}={option}")) is not None:
            return f"{group}={option} needs a package that is missing: pip install {package}."
        return unknown_option(group, option, list(error.options))
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} cannot be read: give key=value, in quotes where it holds other "
            "than letters, digits and -_./ (python run.py --hydra-help)."
        )
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        key = str(cause.full_key)
        root = cause.parent_node._get_root()
        return f"{key} is not set yet: give +{key}=<value>." if is_read(root, key) else unread(key)
    for pattern, meaning in MEANINGS.items():
        if found := re.search(pattern, str(error)):
            return f"{found[1]} {meaning}."
    first = str(error).partition("\n")[0].rstrip(".")
    return f"{first}: python run.py --help shows what can be given."
