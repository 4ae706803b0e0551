"""The clipped ratio of PPO and GRPO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Clipped:
    """The clipped policy loss of each token, and sums of figures about the ratio."""

    loss: Float[Tensor, " token"]
    figures: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)


def clipped_loss(
    log_probs: Float[Tensor, " token"],
    old: Float[Tensor, " token"],
    advantages: Float[Tensor, " token"],
    *,
    clip: float,
) -> Clipped:
    """`max(-A r, -A clip(r, 1 - clip, 1 + clip))`, r = p/p_old (arXiv 1707.06347, equation 7)."""
    log_ratio = log_probs - old
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    with torch.no_grad():
        figures = {
            "clip_fraction": (clipped > plain).sum().to(ratio.dtype),
            "ratio": ratio.detach().sum(),
            "approx_kl": (ratio.detach() - 1 - log_ratio.detach()).sum(),
        }
    return Clipped(torch.maximum(plain, clipped), figures)
