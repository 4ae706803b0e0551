"""Float32 matrix products at full precision, whatever the process has chosen for its products."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Multiply float32 matrices without rounding them to bf16 or TF32 first.

    A CPU then multiplies by MKL. oneDNN, which lower precisions choose, also copies views and is
    slow on small matrices.
    """
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(chosen)
