"""How sure a reward model is which of two responses is better, and how often it is right.

A Bradley-Terry model gives the response with the higher score, by a margin m, the probability
sigmoid(|m|). Pairs are sorted by it into tenths from 0.5 to 1; a model is calibrated where the
share that is right equals the mean probability in each (Guo et al., arXiv 1706.04599).
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

BINS = ("50", "60", "70", "80", "90")  # percent, from which each begins


def calibration_sums(margin: Float[Tensor, " pair"]) -> dict[str, Float[Tensor, ""]]:
    """Sums by bin of margins chosen - rejected, named as LossOutput names metrics."""
    probability = margin.abs().sigmoid()
    place = ((probability - 0.5) * 10).long().clamp(max=len(BINS) - 1)
    right = (margin > 0).to(margin)
    found = {}
    for number, begin in enumerate(BINS):
        inside = (place == number).to(margin)
        stem = f"rewards/at_{begin}"
        found[f"{stem}/share"] = inside.sum()
        for name, values in (("probability", probability), ("accuracy", right)):
            found[f"{stem}/{name}"] = (values * inside).sum()
            found[f"{stem}/{name}_count"] = inside.sum()
    return found


def calibration_curve(
    metrics: Mapping[str, float], stage: str = "val"
) -> list[tuple[float, float, float]]:
    """Return mean probability, accuracy and share of the pairs of each bin that has any."""
    names = ("probability", "accuracy", "share")
    rows = [[metrics.get(f"{stage}/rewards/at_{b}/{name}") for name in names] for b in BINS]
    return [(p, a, s) for p, a, s in rows if p is not None and a is not None and s is not None]


def calibration_error(curve: list[tuple[float, float, float]]) -> float:
    """Return the expected calibration error: the distance of each bin, weighted by its share."""
    return sum(share * abs(probability - accuracy) for probability, accuracy, share in curve)
