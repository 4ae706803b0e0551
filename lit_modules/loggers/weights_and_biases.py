"""Weights & Biases: a run for each stage, its files in the artifact."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from dress.artifact import Artifact, Parent
from dress.errors import InputError
from dress.files import naming, write_text
from dress.reporting.dashboard import TURNS, by_turn
from dress.wandb_mode import Choice, Mode, wandb_mode

RUN_ID, LOGGED = "run_id", "logged_model"
MODEL_FILES = ("weights", "tokenizer", "preprocess.json", "config.yaml", "metrics.json")
STEP = "trainer/global_step"
DEFAULTS: dict[str, Any] = {
    "project": "dress",
    "console": "off",
    "symlink": False,  # links would point to where the artifact was built
    "disable_git": True,
    "disable_code": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}


@contextmanager
def wandb_logger(
    *,
    directory: Path,
    config: Mapping[str, Any],
    is_parent: bool,
    project: str | None,
    mode: Choice,
    log_model: bool = False,
) -> Iterator[WandbLogger | None]:
    """Yield the logger of one run, closed afterwards: each stage of a process is a run of its own.

    None where W&B is disabled, and on every rank but the first. The artifact is finished later;
    who finishes it looks at `log_model`.
    """
    chosen = _mode_of(mode, is_parent=is_parent)
    if chosen == "disabled" or rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        yield None
        return
    with wandb_run(
        directory=directory,
        identity=_identity(directory / "wandb" / RUN_ID, _own("WANDB_RUN_ID", is_parent)),
        name=_own("WANDB_NAME", is_parent) or directory.name.removesuffix(".partial"),
        project=project,
        mode=chosen,
        config=config,
    ) as run:
        yield WandbLogger(experiment=run)


def log_evaluations(
    artifact: Artifact,
    metrics: Mapping[str, float],
    *,
    is_parent: bool,
    project: str | None,
    mode: Choice,
) -> None:
    """Add the evaluations of a trained model to the W&B run that it was trained in, if any.

    Those over turns of feedback are logged a second time, turn by turn, as curves.
    """
    with _run_of(artifact, is_parent=is_parent, project=project, mode=mode) as run:
        if run is None:
            return
        run.log({**metrics, STEP: artifact.config["trainer"]["max_steps"]})
        turns = by_turn(metrics)
        run.define_metric(TURNS, hidden=True)
        for name in dict.fromkeys(name for figures in turns.values() for name in figures):
            run.define_metric(name, step_metric=TURNS)
        for turn, figures in turns.items():
            run.log({**figures, TURNS: turn})


def log_model(
    artifact: Artifact,
    parents: Mapping[str, Parent],
    *,
    is_parent: bool,
    project: str | None,
    mode: Choice,
) -> None:
    """Log a finished model as an artifact of W&B, once, with what it was made from.

    A model goes with its weights, tokenizer, configuration and figures; data are only named.
    """
    logged = artifact.path / "wandb" / LOGGED
    if logged.exists():
        return
    with _run_of(artifact, is_parent=is_parent, project=project, mode=mode) as run:
        if run is None:
            return
        for parent in parents.values():
            # run.use_artifact does the same and refuses to where W&B is offline
            run._log_artifact(
                _described(parent), aliases=[parent.fingerprint[:12]], use_after_commit=True
            )
        run.log_artifact(_described(artifact), aliases=["latest", artifact.fingerprint[:12]])
    write_text(logged, "")


def _described(parent: Parent) -> Any:
    """Describe a model or data as an artifact of W&B, the same whichever run logs it."""
    import wandb

    is_model = isinstance(parent, Artifact) and parent.lineage["kind"] == "model"
    described = wandb.Artifact(
        parent.name.rpartition("-")[0] or parent.name,
        type="model" if is_model else "dataset",
        metadata={"name": parent.name, "fingerprint": parent.fingerprint},
    )
    if not (is_model and isinstance(parent, Artifact)):
        with described.new_file("fingerprint.txt") as file:
            file.write(parent.fingerprint)
        return described
    for name in MODEL_FILES:
        for path in sorted((parent.path / name).rglob("*")) or [parent.path / name]:
            if path.is_file():
                name_there = path.relative_to(parent.path).as_posix()
                described.add_file(str(path), name=name_there, policy="immutable", skip_cache=True)
    return described


@contextmanager
def _run_of(
    artifact: Artifact, *, is_parent: bool, project: str | None, mode: Choice
) -> Iterator[Any]:
    """Yield the W&B run that a model was trained in; None where there is none or W&B is off."""
    identity = artifact.path / "wandb" / RUN_ID
    chosen = _mode_of(mode, is_parent=is_parent)
    if chosen == "disabled" or not identity.exists() or int(os.environ.get("RANK", "0")) > 0:
        yield None
        return
    with wandb_run(
        directory=artifact.path,
        identity=identity.read_text(encoding="utf-8"),
        name=_own("WANDB_NAME", is_parent) or artifact.name,
        project=project,
        mode=chosen,
        config=artifact.config,
    ) as run:
        yield run


def _mode_of(mode: Choice, *, is_parent: bool) -> Mode:
    """Say how W&B runs; a trial of its sweeps is one run, which is not that of the parents."""
    return "disabled" if is_parent and "WANDB_SWEEP_ID" in os.environ else wandb_mode(mode)


def _own(variable: str, is_parent: bool) -> str | None:
    """Return what names one run: that of the command, not those of its parents."""
    return None if is_parent else os.environ.get(variable)


def _identity(file: Path, given: str | None) -> str:
    """Return the id of a run, the same after an interruption: W&B then joins the parts."""
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        write_text(file, given or uuid.uuid4().hex[:12])
    return file.read_text(encoding="utf-8")


@contextmanager
def wandb_run(
    *,
    directory: Path,
    identity: str,
    name: str,
    project: str | None,
    mode: Mode,
    config: Mapping[str, Any],
) -> Iterator[Any]:
    """Yield a W&B run whose files are in `directory/wandb`, for `wandb sync` where offline.

    What W&B's own variables or settings file say counts before our defaults; id and mode are
    decided here. Images of tables are staged beside the artifact, because W&B notes where they are.
    """
    shared = directory.parent.absolute() / "wandb"
    environment = {"WANDB_DATA_DIR": str(shared), "WANDB_CACHE_DIR": str(shared / "cache")}
    silent = environment | {"WANDB_SILENT": "true"}
    with _environment(silent), _asking_for_help(), naming(directory):  # W&B does not name its file
        import wandb

        given = wandb.setup().settings.model_fields_set
        defaults = DEFAULTS | {"root_dir": str(directory)}
        run = wandb.init(
            id=identity,
            name=name,
            project=project,
            config=dict(config),
            mode=mode,
            resume=None if mode == "offline" else "allow",
            settings=wandb.Settings(**{k: v for k, v in defaults.items() if k not in given}),
        )
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        try:  # W&B's own context manager prints a traceback whenever an exception passes
            yield run
        except BaseException:
            run.finish(exit_code=1)
            raise
        run.finish()
    for log in (directory / "wandb").glob("*/logs/*"):
        if log.is_symlink():  # to the log of W&B's process, which more than one run shares
            log.unlink()


@contextmanager
def _asking_for_help() -> Iterator[None]:
    """Turn W&B's errors, such as a wrong key, into a sentence."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("wandb.", "pydantic")):
            raise
        raise InputError(
            f"W&B failed ({' '.join(str(error).split())}): check WANDB_API_KEY and "
            "W&B's other variables, or give logger.wandb.mode=offline or logger=local."
        ) from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables within the block; what the user has set stays."""
    # else W&B reports its errors over the network, offline or not; it looks when it is imported
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    added = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
