"""Process-wide torch settings."""

from __future__ import annotations

import torch
from omegaconf import DictConfig


def configure(trainer: DictConfig) -> None:
    """Choose the matrix precision and, on CPU, attention by plain matrix products.

    CPU flash attention was 3-4 times slower than matrix products on the short rows of image
    patches and sequences that models of this size see (docs/results.md).
    """
    torch.set_float32_matmul_precision(trainer.matmul_precision)
    if trainer.accelerator == "cpu":
        torch.backends.cuda.enable_flash_sdp(False)
