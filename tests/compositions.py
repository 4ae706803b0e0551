"""Hydra's compositions, made faster for tests: what does not depend on typed values is kept.

A composition reads and merges some fifty files, a quarter of a second, and tests compose a thousand
times. Which files are merged, and what they give, follows from the chosen options of the groups
alone. Hydra puts the values that were typed into that afterwards, here as elsewhere, and into a
copy. Only what comes from the project's own `conf` is kept, which no test alters.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

OURS = str(Path(__file__).resolve().parents[1] / "conf")


def keep_compositions() -> None:
    """Let this process merge each choice of options once."""
    config_loader_impl.create_defaults_list = _lists_kept(config_loader_impl.create_defaults_list)
    ConfigLoaderImpl._compose_config_from_defaults_list = _merged_kept(  # type: ignore[method-assign]
        ConfigLoaderImpl._compose_config_from_defaults_list
    )


def _is_ours(repo: IConfigRepository) -> bool:
    return {s.path for s in repo.get_sources() if s.scheme() == "file"} == {OURS}


def _lists_kept(make: Callable[..., DefaultsList]) -> Callable[..., DefaultsList]:
    kept: dict[Any, bytes] = {}

    @wraps(make)
    def create_defaults_list(
        repo: IConfigRepository,
        config_name: str | None,
        overrides_list: list[Override],
        prepend_hydra: bool,
        skip_missing: bool,
    ) -> DefaultsList:
        if not _is_ours(repo):
            return make(repo, config_name, overrides_list, prepend_hydra, skip_missing)
        typed = Overrides(repo=repo, overrides_list=overrides_list)
        values = {id(override) for override in typed.config_overrides}
        chosen = tuple(o.input_line for o in overrides_list if id(o) not in values)
        key = (config_name, chosen, prepend_hydra, skip_missing)
        if key not in kept:
            made = make(repo, config_name, overrides_list, prepend_hydra, skip_missing)
            kept[key] = pickle.dumps((made.defaults, made.overrides.known_choices))
        defaults, typed.known_choices = pickle.loads(kept[key])
        return DefaultsList(
            defaults=defaults,
            defaults_tree=None,  # type: ignore[arg-type]  # which `--info` alone shows
            config_overrides=typed.config_overrides,
            overrides=typed,
        )

    return create_defaults_list


def _merged_kept(merge: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    kept: dict[str, bytes] = {}

    @wraps(merge)
    def merged(self: ConfigLoaderImpl, defaults: list[Any], repo: IConfigRepository) -> DictConfig:
        if not _is_ours(repo):
            return merge(self, defaults, repo)
        key = repr(defaults)
        if key not in kept:
            kept[key] = pickle.dumps(merge(self, defaults, repo))
        cfg: DictConfig = pickle.loads(kept[key])
        return cfg

    return merged
