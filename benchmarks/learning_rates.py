"""The five learning rates that each method is tried with, and which of them did best."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
RATES = {  # the method's own default, which the factors multiply
    "best of K": 4e-4,
    "DRESS 2": 4e-4,
    "SDPO": 2e-4,
    "DPO": 2.5e-5,
    "RM + PPO, facts": 6.25e-6,
    "GRPO, facts": 6.25e-6,
}
SHARED = {  # variants of a method take its rate
    "SFT continued": "best of K",
    "score-conditioned": "DRESS 2",
    "DRESS 3": "DRESS 2",
    "DRESS joint": "DRESS 2",
    "DRESS 2, two rounds": "DRESS 2",
    "DPO + mDPO": "DPO",
    "RM + PPO, no facts": "RM + PPO, facts",
    "GRPO, no facts": "GRPO, facts",
}


def trials(folder: Path, arm: str) -> Iterator[tuple[float, Path]]:
    """Yield the learning rates of a method and the file of each."""
    name = re.sub(r"[^a-z0-9]+", "_", arm.lower())
    for factor in FACTORS if arm in RATES else ():
        rate = factor * RATES[arm]
        yield rate, folder / f"{name}-lr-{rate:g}.json"


def best_rate(folder: Path, arm: str) -> float | None:
    """Return the rate with the highest mean of the three H; None for a method never searched."""
    found: dict[float, float] = {}
    for rate, path in trials(folder, SHARED.get(arm, arm)):
        if path.exists() and "metrics" in (record := json.loads(path.read_text())):
            found[rate] = record["metrics"]["world/mean"]
    return max(found, key=found.__getitem__) if found else None
