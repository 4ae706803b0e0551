"""Guidance by contrast between two prompts at generation.

log p ~ (1 + w) log p(token | target) - w log p(token | contrast), classifier-free guidance
for language models (Sanchez et al. 2023, arXiv 2306.17806) with the worst feedback as contrast.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor


class ContrastGuidance(LogitsProcessor):
    """Mix the scores of the first half of the rows with those of the second half.

    Row i + n / 2 is the contrast of row i; both halves get the same scores, so that greedy
    decoding keeps them in step, each with its own key-value cache.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(
        self, input_ids: Int[Tensor, "row seq"], scores: Float[Tensor, "row vocab"]
    ) -> Float[Tensor, "row vocab"]:
        target, contrast = scores.log_softmax(dim=-1).chunk(2)
        mixed = (1 + self.weight) * target - self.weight * contrast
        return torch.cat([mixed, mixed])
