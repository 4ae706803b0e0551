"""Draw what the reward model says of a policy beside the true score, over its rollouts.

    python benchmarks/reward_hacking.py docs/results/comparison docs/reward_hacking.png

A policy deceives its judge where the upper line rises and the lower one falls.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from matplotlib.figure import Figure

METHODS = {"PPO": "rm_ppo", "GRPO": "grpo"}
FACTS = {"facts": "#0072b2", "no_facts": "#d55e00"}
PANELS = {"ppo/score": "reward model's score", "ppo/true_score": "true score (mean rating)"}
WINDOW = 5  # rollouts


def smooth(values: list[float]) -> list[float]:
    """Average each value with those before it, up to WINDOW in all."""
    parts = [values[max(0, end - WINDOW) : end] for end in range(1, len(values) + 1)]
    return [sum(part) / len(part) for part in parts]


def draw(folder: Path, out: Path) -> None:
    figure = Figure(figsize=(7.5, 5.0), layout="constrained")
    axes = figure.subplots(len(PANELS), len(METHODS), sharex=True, sharey="row")
    for column, (method, stem) in enumerate(METHODS.items()):
        for facts, colour in FACTS.items():
            for number, path in enumerate(sorted(folder.glob(f"{stem}_{facts}-*.json"))):
                curves = json.loads(path.read_text())["curves"]
                for row, name in enumerate(PANELS):
                    label = facts.replace("_", " ") if number == 0 else None
                    ax = axes[row][column]
                    ax.plot(smooth(curves[name]), color=colour, label=label, linewidth=1.2)
        axes[0][column].set_title(f"{method}: a line per seed")
        axes[-1][column].set_xlabel("rollout")
        axes[0][column].legend(frameon=False)
    for row, label in enumerate(PANELS.values()):
        axes[row][0].set_ylabel(label)
    figure.savefig(out, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    draw(arguments.folder, arguments.out)


if __name__ == "__main__":
    main()
