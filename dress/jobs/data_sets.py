"""What a model is trained from: other models, and shards that lie anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dress.artifact import Artifact, Parent
from dress.data.shard_set import RemoteShards, ShardSet
from dress.data.stores.addresses import check_url, has_key, is_remote, public
from dress.data.stores.cache import ShardCache, shard_cache
from dress.errors import InputError


@dataclass(frozen=True)
class Parents:
    """Data, the model to begin with, a reward model, and more data to mix in, by name."""

    data: ShardSet
    init: Artifact | None = None
    reward: Artifact | None = None
    mixture: Mapping[str, ShardSet] = field(default_factory=dict)

    def by_role(self) -> dict[str, Parent]:
        given: dict[str, Parent | None] = {
            "data": self.data,
            "init": self.init,
            "reward": self.reward,
            **{f"mixture_{name}": data for name, data in self.mixture.items()},
        }
        return {role: parent for role, parent in given.items() if parent is not None}


def open_data_set(location: str) -> ShardSet:
    """Open an artifact of shards on disk, or a copy of one behind a URL."""
    return RemoteShards.open(location) if is_remote(location) else Artifact.open(location)


def mixed(cfg: DictConfig) -> dict[str, Any]:
    """Return the sources that are mixed in, by name; those of weight 0 are left out."""
    return {name: entry for name, entry in cfg.datamodule.mixture.items() if entry.weight > 0}


def cache(cfg: DictConfig) -> ShardCache | None:
    return shard_cache(**cfg.datamodule.cache)


def check_locations(cfg: DictConfig) -> None:
    """Refuse what is no place for shards, and a key that would be kept with the command."""
    for key, typed, place in _locations(cfg.datamodule):
        if not is_remote(place):
            continue
        if has_key(place) and not typed.startswith("${oc.env:"):
            raise InputError(
                f"{key} ({public(place)}) holds a key: put the address into an environment "
                f"variable and give '{key}=${{oc.env:NAME}}'."
            )
        check_url(place)


def _locations(node: DictConfig) -> Iterator[tuple[str, str, str]]:
    """Yield the name of each place of shards, how it was typed and what it is."""
    if node.shards is not None:
        yield "datamodule.shards", _typed(node, "shards"), str(node.shards)
    for name, entry in node.mixture.items():  # check_mixture saw that they are whole
        if entry.get("artifact"):
            key = f"datamodule.mixture.{name}.artifact"
            yield key, _typed(entry, "artifact"), str(entry.artifact)


def _typed(node: Any, key: str) -> str:
    return str(OmegaConf.to_container(node, resolve=False)[key])  # type: ignore[index, call-overload]
