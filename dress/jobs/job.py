"""What every job shares: its parents, its fingerprint and its place among the artifacts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from dress.artifact import Artifact, ArtifactStore, Building, artifact_name, fingerprint
from dress.errors import InputError

FORWARDED_GROUPS = {
    "model",
    "data",
    "source",
    "annotator",
    "feedback",
    "seed",
    "paths",
    "logger",
    "callbacks",
    "parents",
    "debug",
}
FORWARDED_KEYS = {
    "trainer",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.precision",
    "trainer.matmul_precision",
}


@dataclass(frozen=True)
class Job:
    """A composed configuration and the overrides that were typed for it."""

    cfg: DictConfig
    overrides: Sequence[str]
    is_parent: bool = False

    def run(self) -> Artifact:
        return import_module(f"dress.jobs.{self.cfg.job.name}").run(self)

    def parent(self, role: str) -> Artifact:
        """Return the artifact of `lineage.<role>`, built first where it is missing."""
        experiment = self.cfg.lineage.get(role)
        if experiment is None:
            raise InputError(
                f"lineage.{role} is not set: name an experiment, e.g. experiment=dress_stage2."
            )
        forwarded = forwarded_overrides(self.overrides)
        cfg = compose(config_name="run", overrides=[f"experiment={experiment}", *forwarded])
        return Job(cfg=cfg, overrides=forwarded, is_parent=True).run()

    def node(self, name: str) -> Any:
        """Return one configuration node as plain data, interpolations resolved."""
        value = self.cfg[name]
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(Path(self.cfg.paths.artifacts))

    @contextmanager
    def building(
        self,
        *,
        kind: str,
        nodes: Mapping[str, Any],
        parents: Mapping[str, Artifact],
        inputs: Mapping[str, str] | None = None,
        name: str | None = None,
        keep_partial: bool = False,
    ) -> Iterator[Building]:
        """Build (or reuse) the artifact named by the nodes the job uses and by its inputs."""
        digest = fingerprint(
            {"kind": kind, **nodes},
            {role: parent.fingerprint for role, parent in parents.items()},
            inputs or {},
        )
        full_name = artifact_name(name or self.cfg.name, digest)
        missing = self.store.find(full_name) is None
        if missing and self.is_parent and self._must_not_build():
            raise InputError(
                f"{full_name} is missing and parents=require forbids to build it: run "
                f"experiment={self.cfg.name} with the same model, data and seed first."
            )
        if missing:
            print(f"building {full_name} (job={self.cfg.job.name})", flush=True)
        config = {**nodes, "name": self.cfg.name, "job": self.cfg.job.name}
        with self.store.build(
            full_name,
            kind=kind,
            config=config,
            fingerprint=digest,
            parents=parents,
            inputs=inputs or {},
            fresh=self.cfg.fresh and not self.is_parent,
            keep_partial=keep_partial,
        ) as building:
            yield building

    def _must_not_build(self) -> bool:
        if self.cfg.parents not in ("build", "require"):
            raise InputError(f"parents is {self.cfg.parents!r}: choose build or require.")
        return self.cfg.parents == "require" or int(os.environ.get("WORLD_SIZE", "1")) > 1


def forwarded_overrides(overrides: Sequence[str]) -> list[str]:
    """Keep what a parent must share: model, data, seed, paths and where it runs, nothing else."""
    kept = []
    for override in overrides:
        key = override.lstrip("+~").split("=", 1)[0]
        if key in FORWARDED_KEYS or re.split(r"[./@]", key)[0] in FORWARDED_GROUPS:
            kept.append(override)
    return kept
