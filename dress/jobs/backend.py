"""Process-wide torch settings."""

from __future__ import annotations

import torch
from omegaconf import DictConfig


def configure(trainer: DictConfig) -> None:
    """Choose the matrix precision and, on CPU, attention by plain matrix products.

    Precision `auto` takes bf16 products where there are units for them: elsewhere they cost more.
    CPU flash attention was 3-4 times slower than matrix products on the short rows of image
    patches and sequences that models of this size see (docs/results.md).
    """
    precision = trainer.matmul_precision
    if precision == "auto":
        precision = "medium" if has_bf16_units() else "highest"
    torch.set_float32_matmul_precision(precision)
    if trainer.accelerator == "cpu":
        torch.backends.cuda.enable_flash_sdp(False)


def has_bf16_units() -> bool:
    """Whether the GPU or CPU multiplies bf16 matrices; elsewhere bf16 products cost more."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(unit, False) for unit in ("amx_bf16", "avx512_bf16", "bf16"))
