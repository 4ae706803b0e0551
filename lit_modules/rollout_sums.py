"""Sums of figures about responses, over forward passes and ranks."""

from __future__ import annotations

from collections.abc import Mapping

from dress.distributed import gather

Sums = dict[str, float]


def add(sums: Sums, more: Mapping[str, float]) -> None:
    for name, value in more.items():
        sums[name] = sums.get(name, 0.0) + value


def shares(sums: Sums, stage: str) -> Sums:
    """Divide sums by the count of responses, or their own; what was never counted is left out."""
    found = {}
    for name, value in sums.items():
        count = sums.get(f"{name}_count", sums["count"])
        if name != "count" and not name.endswith("_count") and count:
            found[f"{stage}/{name}"] = value / count
    return found


def over_ranks(own: Sums) -> Sums:
    total: Sums = {}
    for share in gather(own):
        add(total, share)
    return total
