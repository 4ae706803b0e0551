"""What every job shares: its parents, its fingerprint and its place among the artifacts."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from dress.artifact import (
    Artifact,
    ArtifactStore,
    Building,
    Parent,
    artifact_name,
    fingerprint,
)
from dress.errors import InputError
from dress.files import from_home
from dress.jobs.checks import (
    check,
    check_code,
    check_planned_rows,
    check_processes,
    find_own_packages,
    world_size,
)
from dress.jobs.contradictions import check_typed
from dress.jobs.keys import typed
from dress.modeling.specification import tower_weights

FORWARDED_GROUPS = {
    "model",
    "template",
    "data",
    "source",
    "annotator",
    "feedback",
    "shards",
    "seed",
    "paths",
    "logger",
    "matmul_precision",
    "packages",
    "parents",
    "debug",
}
FORWARDED_KEYS = {
    "datamodule.rows_per_batch",
    "module.activation_checkpointing",
    "trainer",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.precision",
    "trainer.strategy",
}
WATCHERS = (  # entries of `callbacks` that change no number
    "condition_ratings",
    "progress",
    "rejected_groups",
    "sample_table",
    "throughput",
    "trained_tokens",
)
WATCHING = ("default", "none", "train_state", *WATCHERS)  # options of the group without others
FROM_ARTIFACT = ("model", "template", "condition")


@dataclass(frozen=True)
class Job:
    """A composed configuration and the overrides that were typed for it."""

    cfg: DictConfig
    overrides: Sequence[str]
    is_parent: bool = False
    # experiment and extra overrides -> artifact: parents of parents are often the same
    found: dict[str, Artifact] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expand_home(self.cfg, OmegaConf.to_container(self.cfg, resolve=False))
        find_own_packages(self.cfg)

    @property
    def leads(self) -> bool:
        """Whether this process builds the artifact; the others of torchrun train with it."""
        return world_size() == 1 or os.environ.get("RANK", "0") == "0"

    def run(self) -> Artifact:
        artifact = self.work()(self)
        assert artifact is not None, "a parent is an artifact"
        return artifact

    def work(self) -> Callable[[Job], Artifact | None]:
        """Check the configuration and return what does the job; None comes of a mere check."""
        name = self.cfg.job.name
        if not self.leads:
            check_processes(self.cfg)
            name = "hosts"  # which trains with the first
        else:
            self._check()
        run: Callable[[Job], Artifact | None] = import_module(f"dress.jobs.{name}").run
        return run

    def _check(self) -> None:
        replaced = draw_weights(self.cfg)
        if replaced and not self.is_parent:
            print(
                f"init_from=random: random weights instead of {' and '.join(replaced)}", flush=True
            )
        check_code(self.cfg, self.overrides)
        check(self.cfg)
        resolve(self.cfg)
        if not self.is_parent:
            check_processes(self.cfg)
            check_typed(self.cfg, typed(self.overrides))
            if self.cfg.job.name == "train":
                check_planned_rows(self.cfg, typed(self.overrides))

    def finish(self, artifact: Artifact | None) -> float | None:
        """Say where the artifact is, and return the metric that a sweep asks for."""
        if artifact is None:
            return None
        print(f"artifact: {artifact.path}", flush=True)
        if (name := self.cfg.sweep.metric) is None:
            return None
        if name not in artifact.metrics:
            raise InputError(
                f"sweep.metric is {name}, which {artifact.path / 'metrics.json'} does not hold: "
                "give one of its names."
            )
        return artifact.metrics[name]

    def parent(self, role: str, *extra: str) -> Artifact:
        """Return the artifact of `lineage.<role>`, built first where it is missing.

        `extra` are overrides for this parent besides those that every parent shares.
        """
        experiment = self.cfg.lineage.get(role)
        if experiment is None:
            raise InputError(
                f"lineage.{role} is not set: give experiment=dress_stage2 or another that sets it "
                "(experiment=dress_feedback for job=annotate)."
            )
        return self.built(experiment, *extra)

    def built(self, experiment: str, *extra: str) -> Artifact:
        """Return the artifact of an experiment with what is shared here, built where missing."""
        key = " ".join([experiment, *extra])
        if key not in self.found:
            overrides = [*forwarded_overrides(self.overrides), *extra]
            if world_size() > 1:  # all of which train the parents too
                places = {name: self.cfg.trainer[name] for name in ("devices", "num_nodes")}
                overrides += [f"trainer.{name}={number}" for name, number in places.items()]
            cfg = compose(config_name="run", overrides=[f"experiment={experiment}", *overrides])
            parent = Job(cfg=cfg, overrides=overrides, is_parent=True, found=self.found)
            self.found[key] = parent.run()
        return self.found[key]

    def again(self, override: str) -> Artifact:
        """Return the artifact of this very job with one more override."""
        overrides = [*self.overrides, override]
        if not any(o.startswith("experiment=") for o in overrides):
            overrides = [f"experiment={self.cfg.name}", *overrides]
        cfg = compose(config_name="run", overrides=overrides)
        return Job(cfg=cfg, overrides=overrides, is_parent=True, found=self.found).run()

    def refuse_model_overrides(self, instead: str) -> None:
        """The model, its template and the form of its condition come from the artifact."""
        for override in self.overrides:
            key = override.lstrip("+~").split("=", 1)[0]
            if key.replace("/", ".").split(".")[0] in FROM_ARTIFACT and key != "condition.target":
                raise InputError(
                    f"{key} cannot be given with job={self.cfg.job.name}: it comes from the "
                    f"artifact; {instead}."
                )

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
        parents: Mapping[str, Parent],
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
        # an evaluation at the end of training says what it is
        doing = "evaluate" if kind == "evaluation" else self.cfg.job.name
        if self.is_parent and self.store.find(full_name) is None:
            self._check_may_build(full_name)
        config = {**nodes, "name": self.cfg.name, "job": doing}
        started = time.monotonic()
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
            if not building.reused:
                verb = "resuming" if building.resuming else "building"
                print(f"{verb} {full_name} (job={doing})", flush=True)
            elif doing == self.cfg.job.name and not self.is_parent:
                print(f"{full_name} exists (fresh=true builds it again)", flush=True)
            yield building
        if not building.reused:
            print(f"{full_name} done in {time.monotonic() - started:.0f} s", flush=True)

    def _check_may_build(self, name: str) -> None:
        if self.cfg.parents == "require":
            raise InputError(
                f"{name} is missing and parents=require forbids to build it: run experiment="
                f"{self.cfg.name} with the same model, data and seed first."
            )


def resolve(cfg: DictConfig) -> None:
    """Replace `auto` where it decides numbers, so that no host and no library decides instead.

    Float32 products are at full precision on a CPU, where bf16 products bring nothing at the sizes
    that a CPU trains (docs/performance.md), and in TF32 on a GPU.
    """
    if cfg.matmul_precision == "auto":
        cfg.matmul_precision = "high" if cfg.trainer.accelerator == "gpu" else "highest"


def draw_weights(cfg: DictConfig) -> list[str]:
    """Let `init_from=random` mean random weights; return the names of those not read for it."""
    if cfg.job.name != "train" or cfg.init_from != "random":
        return []
    model, vision, language = nodes = cfg.model, cfg.model.vision, cfg.model.language
    names = (model.get("name"), tower_weights(vision), language.name)
    replaced = [n for node, n in zip(nodes, names, strict=True) if n and not node.random_init]
    for node in nodes:
        if "random_init" in node:
            node.random_init = True
    return replaced


def expand_home(node: Any, plain: Any) -> None:
    """Put the home folder in the place of each leading `~`; `plain` is the node as plain data."""
    for key, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
        if isinstance(value, dict | list):
            expand_home(node[key], value)
        elif isinstance(value, str) and value.startswith("~"):
            node[key] = from_home(value)


def open_model(path: str) -> Artifact:
    artifact = Artifact.open(path)
    if (kind := artifact.lineage["kind"]) != "model":
        raise InputError(f"{path} holds {kind}, not a model: give the folder of a training run.")
    return artifact


def forwarded_overrides(overrides: Sequence[str]) -> list[str]:
    """Keep what a parent must share: model, data, seed, paths and where it runs, nothing else.

    Callbacks that only watch are shared as well: those that decide belong to one stage.
    """
    kept = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key == "callbacks":
            watching = [option for option in WATCHING if option in re.split(r"\W+", value)]
            kept += [f"callbacks=[{','.join(watching)}]"] if watching else []
        elif key.startswith("callbacks."):
            kept += [override] if key.split(".")[1] in WATCHERS else []
        elif key in FORWARDED_KEYS or re.split(r"[./@]", key)[0] in FORWARDED_GROUPS:
            kept.append(override)
    return kept
