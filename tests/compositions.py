"""Hydra's compositions, made faster for tests: what a file holds and what files make are kept.

A composition reads and merges some fifty files, a quarter of a second, and tests compose thousands
of times. Here each file is parsed once in a process, and each list of files is merged once. Hydra
puts the values that were typed into a copy of that afterwards, as elsewhere. Only what comes from
Hydra itself and from the project's own `conf` is kept, which no test alters.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig

OURS = str(Path(__file__).resolve().parents[1] / "conf")


def keep_compositions() -> None:
    """Let this process parse each file once, and merge each list of files once."""
    ConfigRepository.load_config = _files_kept(ConfigRepository.load_config)  # type: ignore[method-assign]
    ConfigLoaderImpl._compose_config_from_defaults_list = _merged_kept(  # type: ignore[method-assign]
        ConfigLoaderImpl._compose_config_from_defaults_list
    )
    defaults_list._create_interpolation_map = _made_for_interpolations(
        defaults_list._create_interpolation_map
    )


def parse_all() -> None:
    """Parse the files ahead, for processes that are forked from this one."""
    with initialize_config_dir(OURS, version_base="1.3"):
        compose("run")  # which reads Hydra's own
        repository = GlobalHydra.instance().config_loader().repository  # type: ignore[attr-defined]
        for path in Path(OURS).rglob("*.yaml"):
            repository.load_config(path.relative_to(OURS).as_posix())


def _files_kept(
    load: Callable[[ConfigRepository, str], ConfigResult | None],
) -> Callable[[ConfigRepository, str], ConfigResult | None]:
    kept: dict[Any, bytes] = {}

    @wraps(load)
    def load_config(self: ConfigRepository, config_path: str) -> ConfigResult | None:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or (source.scheme() == "file" and source.path != OURS):
            return load(self, config_path)
        key = (source.scheme(), source.path, source.provider, config_path)
        if key not in kept:
            kept[key] = pickle.dumps(load(self, config_path))
        result: ConfigResult = pickle.loads(kept[key])
        return result

    return load_config


def _merged_kept(merge: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    kept: dict[str, bytes] = {}

    @wraps(merge)
    def merged(self: ConfigLoaderImpl, defaults: list[Any], repo: IConfigRepository) -> DictConfig:
        if {s.path for s in repo.get_sources() if s.scheme() == "file"} != {OURS}:
            return merge(self, defaults, repo)
        key = repr(defaults)
        if key not in kept:
            kept[key] = pickle.dumps(merge(self, defaults, repo))
        cfg: DictConfig = pickle.loads(kept[key])
        return cfg

    return merged


def _made_for_interpolations(make: Callable[..., DictConfig]) -> Callable[..., DictConfig | None]:
    """Hydra makes a map for each file, and looks into it where an option is named by another."""

    @wraps(make)
    def create_interpolation_map(
        overrides: Any, defaults: list[Any], self_added: bool
    ) -> DictConfig | None:
        needed = any(default.is_interpolation() for default in defaults)
        return make(overrides, defaults, self_added) if needed else None

    return create_interpolation_map
