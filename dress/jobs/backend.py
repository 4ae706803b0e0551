"""Process-wide torch settings, and where a model runs."""

from __future__ import annotations

import os

import torch
from omegaconf import DictConfig

from dress.errors import InputError


def configure(trainer: DictConfig) -> None:
    """Set the matrix precision and, on CPU, attention by plain matrix products.

    CPU flash attention was 3-4 times slower than matrix products on the short rows of image
    patches and sequences that models of this size see (docs/log/stage0.md).
    """
    torch.set_float32_matmul_precision(trainer.matmul_precision)
    if trainer.accelerator == "cpu":
        torch.backends.cuda.enable_flash_sdp(False)


def device(trainer: DictConfig) -> torch.device:
    """Return this process's own device; InputError where it has none."""
    if trainer.accelerator == "cpu" or not (trainer.accelerator == "gpu" or _gpus()):
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= _gpus():
        raise InputError(
            f"there are {_gpus()} GPUs here: change trainer.accelerator or trainer.devices."
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _gpus() -> int:
    return torch.cuda.device_count()
