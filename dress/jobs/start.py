"""Run the composed job; a user's mistake ends as one sentence."""

from __future__ import annotations

import logging
import sys
import warnings

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from dress.errors import InputError

INTERRUPTED = 130


def start(cfg: DictConfig) -> None:
    print(f"dress: job={cfg.job.name} name={cfg.name} seed={cfg.seed}", flush=True)
    _quieten()
    from dress.jobs.job import Job  # imports nothing heavy, but what it runs does

    try:
        artifact = Job(cfg=cfg, overrides=list(HydraConfig.get().overrides.task)).run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if (sentence := _sentence(error)) is None:
            raise
        print(f"error: {sentence}", file=sys.stderr, flush=True)
        sys.exit(1)
    print(f"artifact: {artifact.path}", flush=True)


def _sentence(error: BaseException | None) -> str | None:
    """Find the message meant for the user, also behind Hydra's own wrapping."""
    while error is not None:
        if isinstance(error, InputError):
            return str(error)
        if isinstance(error, OmegaConfBaseException):
            return " ".join(str(error).split("\n")[:1])
        error = error.__cause__ or error.__context__
    return None


def _quieten() -> None:
    """Keep libraries' chatter from hiding the few lines that matter."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "httpx", "wandb"):
        library = logging.getLogger(name)
        library.setLevel(logging.WARNING)
        library.propagate = False
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", category=FutureWarning)
