"""Process-wide torch settings, and where a model runs."""

from __future__ import annotations

import os
from typing import get_args

import torch

from dress.errors import InputError
from dress.settings import Precision

PRECISIONS = get_args(Precision)


def own_device(accelerator: str) -> torch.device:
    """Return this process's own device; InputError where it has none."""
    if accelerator == "cpu" or not (accelerator == "gpu" or torch.cuda.device_count()):
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= torch.cuda.device_count():
        raise InputError(
            f"there are {torch.cuda.device_count()} GPUs here: change trainer.accelerator or "
            "trainer.devices."
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)
