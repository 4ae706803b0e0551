"""Run the composed job; a user's mistake ends as one sentence."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dress.errors import InputError
from dress.files import from_home, naming, no_space
from dress.jobs.checks import check_code
from dress.jobs.job import Job  # imports nothing heavy, but what it runs does
from dress.jobs.keys import COMPOSITION_ERRORS, check_keys, composition_sentence, no_option
from dress.jobs.slurm import announce_ranks

SPINS = "3000"  # pauses of a waiting thread before it sleeps, a tenth of a millisecond or so
FULL_ERROR = "HYDRA_FULL_ERROR"
TRACED = os.environ.get(FULL_ERROR) == "1"  # the user wants tracebacks
ROOM = 2**16  # bytes that Hydra's own files need
PARTS = {"callbacks": "callbacks", "loggers": "logger", "profilers": "trainer.profiler"}

OmegaConf.register_new_resolver("from_home", from_home, replace=True)  # for Hydra's own folders


@contextmanager
def started(cfg: DictConfig) -> Iterator[Job]:
    """Yield the job of a composed command; a user's mistake in the block ends as one sentence."""
    quieten()
    wait_briefly()
    hydra = HydraConfig.get()
    typed: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    try:
        announce_ranks()
        job = Job(cfg=cfg, overrides=typed)
        if job.leads:
            print(f"dress: job={cfg.job.name} name={cfg.name} seed={cfg.seed}", flush=True)
            check_code(cfg, typed)
            check_keys(cfg, hydra.runtime.choices)
            check_sweep(cfg, hydra.runtime.choices)
        yield job
    except Exception as error:
        if TRACED or (sentence := sentence_of(error)) is None:
            raise
        _fail(sentence)


@contextmanager
def told_in_a_sentence() -> Iterator[None]:
    """End with one line and code 1 where the command does not compose, or a job elsewhere fails."""
    os.environ[FULL_ERROR] = "1"  # Hydra then raises what it would print in several lines
    try:
        yield
    except Exception as error:  # a launcher brings those of jobs in other processes
        sentence = sentence_of(error)
        if sentence is None and isinstance(error, ValueError):
            sentence = no_option(sys.argv[1:])  # Hydra's, at a group that is set to what is no name
        if TRACED or sentence is None:
            raise
        _fail(sentence)


def check_sweep(cfg: DictConfig, choices: Mapping[str, str | None]) -> None:
    """Refuse a sweeper that chooses by a figure and is told none, before the first trial."""
    sweeper = choices.get("hydra/sweeper")
    if HydraConfig.get().mode == RunMode.MULTIRUN and sweeper != "basic" and not cfg.sweep.metric:
        raise InputError(
            f"hydra/sweeper={sweeper} chooses by a figure: give sweep.metric=val/loss or another "
            "name in metrics.json."
        )


class CheckWritable(Callback):
    """End before Hydra makes its own folder where it could not."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        _check_writable(config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _check_writable(config)


def _check_writable(cfg: DictConfig) -> None:
    try:
        root = Path(from_home(cfg.paths.artifacts))
        root.mkdir(parents=True, exist_ok=True)
        with naming(root), tempfile.TemporaryFile(dir=root) as file:
            file.write(bytes(ROOM))
    except InputError as error:
        _fail(str(error))
    except OSError as error:
        _fail(
            sentence_of(error)
            or f"cannot write to {root} ({error.strerror}): set paths.artifacts to a folder that "
            "you may write to."
        )


def _fail(sentence: str) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    sys.exit(1)


def sentence_of(error: BaseException | None) -> str | None:
    """Find the message meant for the user, also behind Hydra's own wrapping."""
    wrapped = error if isinstance(error, InstantiationException) else None
    while error is not None:
        if isinstance(error, InputError) or type(error).__name__ == "Reject":
            return str(error)
        if isinstance(error, COMPOSITION_ERRORS):  # of a parent
            return composition_sentence(error)
        if (node := _refused_by_lightning(error)) is not None:
            return f"training cannot run so ({' '.join(str(error).split())}): change {node}."
        if (full := no_space(error)) is not None:
            file = full.filename2 or full.filename or "a file"
            return (
                f"{file} cannot be written ({full.strerror}): make room there and give the same "
                "command again; it goes on from what was saved."
            )
        if isinstance(error, OmegaConfBaseException):
            where = error.full_key or "what was typed"
            return f"{str(error).partition(chr(10))[0]}: correct {where}."
        # a keyword that the constructor does not know, or lacks
        if wrapped and isinstance(error, TypeError):
            return f"{wrapped}".replace("\n", " ")
        error = error.__cause__ or error.__context__
    return None


def _refused_by_lightning(error: BaseException) -> str | None:
    """Name what to change where a callback, a logger or the trainer refuses what it is given."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    for module in modules[-1:]:
        part = module.removeprefix("lightning.pytorch.").partition(".")[0]
        if part in PARTS:
            return PARTS[part]
    return "trainer" if type(error).__name__ == "MisconfigurationException" else None


def quieten() -> None:
    """Keep libraries' chatter from hiding the few lines that matter.

    Lightning sets its levels when it is imported, later than this; without handlers and
    propagation only its warnings are shown.
    """
    logging.raiseExceptions = False  # a log on a full disk would print tracebacks
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    lightning = ("lightning", "lightning.pytorch", "lightning.fabric")
    web = (
        "httpx",
        "httpx2",
        "openai",
        "wandb",
        "fsspec",
        "s3fs",
        "huggingface_hub",
        "botocore",
        "aiobotocore",
    )
    for name in (*lightning, *web):
        library = logging.getLogger(name)
        library.setLevel(logging.WARNING)
        library.propagate = False
    profilers = logging.getLogger("lightning.pytorch.profilers")  # they report what was asked for
    profilers.setLevel(logging.INFO)
    profilers.handlers = [logging.StreamHandler(sys.stdout)]
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more than cores


def wait_briefly() -> None:
    """Let OpenMP's threads sleep soon where they wait for each other; torch must not be loaded yet.

    By default they spin for milliseconds. Where another program is busy on one of the cores, that
    takes time from the very thread that is waited for (docs/performance.md, A busy neighbour).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
