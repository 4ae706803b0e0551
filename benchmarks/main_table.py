"""Markdown tables of benchmarks/main_result.py's figures.

python benchmarks/main_table.py docs/results/main.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from dress.reporting.comparison import headline_gains

ASPECTS = ("helpfulness", "honesty", "harmlessness", "mean")
DETAILS = (
    *("recall", "vqa_accuracy", "count", "attribute", "relation", "existence", "mentions"),
    *("chair_i", "chair_s", "relevance", "safety", "persuasiveness", "overrefusal"),
)
ROWS = {
    "stage2_none": "stage 2, none",
    "stage2_worst": "stage 2, worst",
    "stage2_1": "stage 2, 1",
    "stage2_2": "stage 2, 2",
    "stage2_3": "stage 2, 3",
    "stage2_4": "stage 2, 4",
    "stage2_best": "stage 2, best",
    "stage1": "stage 1",
    "sft_continued": "SFT continued",
    "best_of_k": "SFT on the best of K",
}
IMAGES = {"stage2_best": "true", "stage2_best_shuffled": "shuffled", "stage2_best_blank": "blank"}
Metrics = Mapping[str, float]


def cell(metrics: Metrics, name: str) -> str:
    low, high = (metrics[f"world/{name}_{end}"] for end in ("low", "high"))
    return f"{metrics[f'world/{name}']:.3f} [{low:.3f}, {high:.3f}]"


def table(header: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def by_seed(results: Sequence[Mapping[str, Any]]) -> str:
    header = ["seed", "model", *ASPECTS]
    return table(
        header,
        (
            [str(result["seed"]), label, *(cell(result[key], aspect) for aspect in ASPECTS)]
            for result in results
            for key, label in (("stage1", "stage 1"), ("stage2_best", "stage 2, best"))
        ),
    )


def gains(results: Sequence[Mapping[str, Any]]) -> str:
    found = [headline_gains(result["stage1"], result["stage2_best"]) for result in results]
    seeds = [f"{number['seed']}" for number in results]
    rows = [
        [
            f"{name}, %",
            *(f"{gain[name]:+.1f}" for gain in found),
            f"{mean(g[name] for g in found):+.1f}",
        ]
        for name in found[0]
    ]
    for aspect in ASPECTS[:3]:
        name = f"world/{aspect}"
        closed = [
            100 * (r["stage2_best"][name] - r["stage1"][name]) / (1 - r["stage1"][name])
            for r in results
        ]
        rows.append(
            [f"{aspect}: distance closed, %", *(f"{c:.0f}" for c in closed), f"{mean(closed):.0f}"]
        )
    return table(["gain", *(f"seed {seed}" for seed in seeds), "mean"], iter(rows))


def rows_of(result: Mapping[str, Any], names: Mapping[str, str], figures: Sequence[str]) -> str:
    return table(
        ["", *figures],
        ([label, *(cell(result[key], f) for f in figures)] for key, label in names.items()),
    )


def details(result: Mapping[str, Any]) -> str:
    columns = ("stage1", "stage2_none", "stage2_best")
    return table(
        ["", "stage 1", "stage 2, none", "stage 2, best"],
        ([name, *(cell(result[key], name) for key in columns)] for name in DETAILS),
    )


def main() -> None:
    results = json.loads(Path(sys.argv[1]).read_text())
    print(by_seed(results), gains(results), sep="\n\n")
    for result in results:
        if "best_of_k" in result:
            print(f"\nSeed {result['seed']}:\n")
            print(details(result), rows_of(result, ROWS, ASPECTS), sep="\n\n", end="\n\n")
            print(rows_of(result, IMAGES, ("helpfulness", "recall", "vqa_accuracy", "honesty")))


if __name__ == "__main__":
    main()
