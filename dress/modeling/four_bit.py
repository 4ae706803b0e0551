"""A language model whose weights rest in 4 bits, by bitsandbytes (QLoRA, arXiv 2305.14314).

Weights are rounded to NF4 in blocks of 64 with scales that are rounded as well, as LLaVA-RLHF
trained; embeddings, norms and the head keep their precision. Only an adapter can train on them, and
none can be merged into them: the sum would be rounded again, which loses most of the adapter. So
the same adapter trains through all stages.
"""

from __future__ import annotations

import importlib
import logging
import sys
from importlib.util import find_spec

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from dress.errors import InputError
from dress.modeling.specification import NOT_MERGED, check_bitsandbytes


def nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return what `from_pretrained` is told; products are in `dtype`."""
    check_bitsandbytes()
    import_without_fetching()
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def import_without_fetching() -> None:
    """Import bitsandbytes, where it is installed, while it does not find the package `kernels`.

    By that package it would fetch native code. transformers imports bitsandbytes to load weights in
    4 bits, and peft for any adapter, so this goes before both.
    """
    if "bitsandbytes" in sys.modules or find_spec("bitsandbytes") is None:
        return
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # or it says what it did not fetch
    kernels = sys.modules.pop("kernels", None)
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("bitsandbytes")
    finally:
        del sys.modules["kernels"]
        if kernels is not None:
            sys.modules["kernels"] = kernels


def is_quantized(language: nn.Module) -> bool:
    """Tell whether the base weights are rounded, so that nothing can be merged into them."""
    return getattr(language.config, "quantization_config", None) is not None


def check_mergeable(language: nn.Module) -> None:
    """Raise InputError where an adapter cannot be merged without loss."""
    if is_quantized(language):
        raise InputError(NOT_MERGED)


def keep_one_layout(language: PreTrainedModel) -> None:
    """Stop bitsandbytes from repacking weights on CPUs of some kinds, in a layout no GPU reads."""
    for module in language.modules():
        if "support_avx512bf16_for_cpu" in vars(module):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
