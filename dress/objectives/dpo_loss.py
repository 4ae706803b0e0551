"""The losses of direct preference optimisation, as functions of log-probabilities alone."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

Variant = Literal["dpo", "ipo"]


def dpo_loss(
    ratio: Float[Tensor, " pair"], *, beta: float, label_smoothing: float = 0.0
) -> Float[Tensor, " pair"]:
    """DPO, `-log sigmoid(beta * ratio)` (arXiv 2305.18290, equation 7).

    `ratio` is log p(chosen)/q(chosen) - log p(rejected)/q(rejected), of sums over tokens, with
    policy p and reference q. `label_smoothing` is the assumed share of pairs that are the wrong
    way round (conservative DPO, https://ericmitchell.ai/cdpo.pdf).
    """
    right, wrong = logsigmoid(beta * ratio), logsigmoid(-beta * ratio)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


def ipo_loss(ratio: Float[Tensor, " pair"], *, beta: float) -> Float[Tensor, " pair"]:
    """IPO, `(ratio - 1 / (2 beta))^2`, of means over tokens (arXiv 2310.12036, equation 17)."""
    return (ratio - 1 / (2 * beta)) ** 2
