"""Which keys a command may set: those that a YAML declares, a constructor takes or a job reads.

Of one that does not exist a sentence says what was probably meant.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import yaml
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import (
    ConfigCompositionException,
    MissingConfigException,
    OverrideParseException,
    SearchPathException,
)
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from dress.errors import InputError
from dress.targets import is_foreign, lies_in

CONSTRUCTORS = {  # of nodes that name none themselves
    "model.vision": "dress.modeling.vision.open_clip_tower",
    "model.vision.config": "open_clip.CLIPVisionCfg",
    "model.language": "dress.modeling.language.causal_lm",
    "model.language.lora": "dress.modeling.language.add_lora",
    "template": "dress.chat.template.ChatTemplate",
}
GIVEN_BY_JOBS = {"condition", "vocab_size", "language", "in_dim", "out_dim", "params", "processor"}
CONF = Path(__file__).resolve().parents[2] / "conf"
OVERLAYS = ("experiment", "debug")  # they set the keys of other groups
ALIKE = 0.75  # of two names, 1 where they are equal
BASES = ("data=files", "datamodule=stream", "objective=policy")  # what other options begin with
SHARED_KEYS = ("endpoint", "json_endpoint")  # files beside run.yaml whose keys options take over
AGAIN = {"benchmark": "interaction"}  # groups with a second node
NODES = {"data": ("data.", "source.")}  # of a group, where it is not the node of its name
READ_BY_JOBS: Mapping[str, Collection[str]] = {
    "lineage": ("init", "data", "model", "prompts", "candidates", "reward", "replay"),
    "model": ("scalar_head",),
}
COMPOSITION_ERRORS = (ConfigCompositionException, OverrideParseException, SearchPathException)
MEANINGS = {  # what Hydra says at length
    r"Ambiguous value for argument '(.*)'": (
        "gives several values: add -m to run each of them, or write [a,b] for a list"
    ),
    r"Additional config directory '(.*)' not found": "is no folder: correct --config-dir",
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
    for choice in (f"{group}={option}" for group, option in options.items()):
        if choice in BASES:
            raise InputError(f"{choice} is what the others begin with: choose one of them.")
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
    if parts[0] == "lineage" and parts[-1] in cfg.datamodule.mixture:
        return True
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
    return set(signature(located(constructor, node)).parameters) - GIVEN_BY_JOBS


def _constructor(cfg: DictConfig, node: str) -> str | None:
    """Name what a node is the keywords of; foreign code is refused elsewhere and not imported."""
    named = _target(cfg, node)
    if named and (not is_foreign(named) or lies_in(named, cfg.packages)):
        return named
    if node == "model.projector":
        return f"dress.modeling.projector.{cfg.model.projector.kind}_projector"
    return CONSTRUCTORS.get(node)


def _target(cfg: DictConfig, node: str) -> str | None:
    return OmegaConf.select(cfg, f"{node}._target_") if node else None


def located(name: str, node: str) -> Any:
    """Import what the `_target_` of a node names; InputError says what is wrong with it."""
    try:
        return get_object(name)
    except ImportError as error:
        why = str(error.__cause__ or error).partition("\n")[0]
        home = f", or run in the folder that holds {name.partition('.')[0]}"
        raise InputError(
            f"{node}._target_={name} cannot be imported ({why}): correct it"
            f"{home if is_foreign(name) else ''}."
        ) from error


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
        target = _target(root, key.rpartition(".")[0])
        # foreign code is refused or checked later, with the key
        known = (target is not None and is_foreign(target)) or is_read(root, key)
        return f"{key} is not set yet: give +{key}=<value>." if known else unread(key)
    for pattern, meaning in MEANINGS.items():
        if found := re.search(pattern, str(error)):
            return f"{found[1]} {meaning}."
    first = str(error).partition("\n")[0].rstrip(".")
    return f"{first}: python run.py --help shows what can be given."


def no_option(arguments: Sequence[str]) -> str | None:
    """Say which group was set to what names no option, such as model=null; None where none was."""
    typed_here = [a for a in arguments if "=" in a and not a.startswith("-")]  # no flag, no folder
    for override in OverridesParser.create().parse_overrides(typed_here):
        group, value = override.key_or_group, override.value()
        values = value.list if isinstance(value, ChoiceSweep) else [value]
        wrong = [option for option in values if not isinstance(option, str | list)]
        if wrong and (CONF / group).is_dir():
            options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
            return unknown_option(group, "null" if wrong[0] is None else str(wrong[0]), options)
    return None


def unread(key: str) -> str:
    """Say that nothing reads a key, and which one is close, or which option has it."""
    known = declared()
    if options := known.get(key):
        return f"nothing that was chosen reads {key}: choose {' or '.join(options)}."
    if close := _close(key, [*known, *_groups()]):
        return f"nothing reads {key}: did you mean {' or '.join(close)}?"
    node = key.rpartition(".")[0]
    beside = sorted({k.rpartition(".")[2] for k in known if node and k.rpartition(".")[0] == node})
    has = f" ({node} has {', '.join(beside)})" if beside else ""
    return f"nothing reads {key}: leave it out{has}."


def unknown_option(group: str, option: str, options: Sequence[str]) -> str:
    close = difflib.get_close_matches(option, options, n=3)
    if close:
        return f"{group} has no option {option!r}: did you mean {' or '.join(close)}?"
    return f"{group} has no option {option!r}: choose one of {', '.join(options)}."


@cache
def declared() -> dict[str, list[str]]:
    """Return every key in conf/ with the options that declare it; overlays declare none."""
    found: dict[str, list[str]] = {}
    for path in sorted(CONF.rglob("*.yaml")):
        group = path.parent.relative_to(CONF).as_posix()
        if group not in OVERLAYS and not (group == "." and path.stem in SHARED_KEYS):
            option = f"{group}={path.stem}"
            for key in () if option in BASES else dict.fromkeys(_declared_in(path, group)):
                found.setdefault(key, []).append(option)
    for group, node in AGAIN.items():
        for key in [key for key in found if key.startswith(f"{group}.")]:
            options = [option.replace(group, f"{group}@{node}", 1) for option in found[key]]
            found[key.replace(group, node, 1)] = options
    return found


def _declared_in(path: Path, group: str) -> Iterator[str]:
    """Yield the keys that one option, and what it begins with, add to the nodes of its group."""
    text = path.read_text(encoding="utf-8")
    nodes = yaml.safe_load(text) or {}
    for base in nodes.pop("defaults", ()):
        if isinstance(base, str) and base != "_self_":
            yield from _declared_in(_file_of(base, path), group)
    top = "" if group == "." else group.replace("/", ".")
    package = re.match(r"# @package (\S+)", text)
    under = top if package is None else package[1].replace("_global_", "")
    for key, _ in leaves(nodes, under):
        if key.startswith(NODES.get(group, top)):
            yield key


def _file_of(base: str, path: Path) -> Path:
    """Find what an option begins with: beside it, or from the top of conf/."""
    name = base.partition("@")[0]
    return CONF / f"{name[1:]}.yaml" if name.startswith("/") else path.with_name(f"{name}.yaml")


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each dotted key below a node with its value; lists count as values."""
    if not isinstance(node, Mapping):
        yield key, node
        return
    for name, value in node.items():
        yield from leaves(value, f"{key}.{name}" if key else str(name))


def _groups() -> list[str]:
    return [path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_dir()]


def _close(key: str, known: Iterable[str]) -> list[str]:
    """Return up to three keys whose node, where it was given, and name are spelt alike."""
    node, _, last = key.rpartition(".")
    found = []
    for name in known:
        other_node, _, other = name.rpartition(".")
        alike = min(_likeness(node, other_node) if node else 1.0, _likeness(last, other))
        if alike >= ALIKE:
            found.append((name.count("."), -alike, name))
    return [name for _, _, name in sorted(found)[:3]]


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
