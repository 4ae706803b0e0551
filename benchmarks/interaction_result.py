"""The evidence on interaction in docs/results.md: who gets better when told how, with controls.

    python benchmarks/interaction_result.py --seed 0 --out docs/results/interaction.json [overrides]
    python benchmarks/interaction_result.py --out docs/results/interaction.json --table

A column that is already in the file is not run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from main_result import evaluate, lineage, run

Columns = dict[str, dict[str, Any]]
FIGURES = (*(f"turn_{number}" for number in range(5)), "repaired", "overcorrection")
FAULTY = (  # of dialogues that open with a faulty response
    *(f"faulty/{arm}repaired_3" for arm in ("", "empty/", "other/", "aside/", "wrong/")),
    "use_of_feedback",
    "use_of_feedback/other",
    "denied_repeated",
)
FAULTY_FIRST = ("benchmark.first=faulty", "benchmark.turns=3")


@dataclass(frozen=True)
class Column:
    """One evaluation of the model of `experiment`, or of its `ancestor`-th parent."""

    experiment: str
    target: str = "best"
    ancestor: int = 0
    training: tuple[str, ...] = ()
    benchmark: tuple[str, ...] = ()


STAGE_3 = "dress_stage3"
COLUMNS: Mapping[str, Column] = {
    "stage 1, none": Column(STAGE_3, "none", ancestor=2),
    "stage 2, best": Column(STAGE_3, ancestor=1),
    "the same revisions without feedback": Column("stage3_no_feedback"),
    "stage 3": Column(STAGE_3),
    "stage 3 hears about another scene": Column(STAGE_3, benchmark=("benchmark.feedback=other",)),
    "stage 3 hears nothing": Column(STAGE_3, benchmark=("benchmark.feedback=empty",)),
    "stage 3 is asked again": Column(STAGE_3, benchmark=("benchmark.feedback=repeat",)),
    "stage 3 is told the truth": Column(STAGE_3, benchmark=("benchmark.detail=reveal",)),
    "stage 3, blank images": Column(STAGE_3, benchmark=("benchmark.images=blank",)),
    "stage 3 hears what is false": Column(STAGE_3, benchmark=("benchmark.feedback=wrong",)),
    "stage 1, faulty first": Column(STAGE_3, "none", ancestor=2, benchmark=FAULTY_FIRST),
    "stage 2, faulty first": Column(STAGE_3, ancestor=1, benchmark=FAULTY_FIRST),
    "stage 3, faulty first": Column(STAGE_3, benchmark=FAULTY_FIRST),
    # as many steps as stages 2 and 3 together
    "joint": Column("dress_joint", training=("trainer.max_steps=1300",)),
}


def ancestor(artifact: Path, steps: int) -> Path:
    for _ in range(steps):
        artifact = artifact.parent / lineage(artifact)["parents"]["init"]["name"]
    return artifact


def measured(column: Column, trained: Callable[..., Path], common: list[str]) -> dict[str, Any]:
    model = ancestor(trained(column.experiment, *column.training), column.ancestor)
    options = ("benchmark=interaction", *column.benchmark)
    metrics = evaluate(model, column.target, common, *options)
    version = lineage(model)["code_version"]
    return {"code_version": version, "date": date.today().isoformat(), "metrics": metrics}


def tables(columns: Columns) -> str:
    """Return the table of own first responses and that of faulty ones."""
    faulty = [label for label, column in COLUMNS.items() if column.benchmark == FAULTY_FIRST]
    own = [label for label in COLUMNS if label not in faulty]
    return "\n\n".join([table(columns, own, FIGURES), table(columns, faulty, FAULTY)])


def table(columns: Columns, labels: Sequence[str], figures: Sequence[str]) -> str:
    """One row per column of the file, so that the page stays narrow."""
    lines = [f"| | {' | '.join(figures)} |", "|---" * (1 + len(figures)) + "|"]
    for label in labels:
        metrics = columns[label]["metrics"] if label in columns else {}
        names = [f"world/interaction/{figure}" for figure in figures]
        cells = [
            f"{metrics[n]:.3f} [{metrics[f'{n}_low']:.3f}, {metrics[f'{n}_high']:.3f}]"
            if n in metrics
            else "missing"
            for n in names
        ]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--columns", nargs="+", choices=list(COLUMNS), default=list(COLUMNS))
    parser.add_argument("--out", type=Path, default=Path("docs/results/interaction.json"))
    parser.add_argument("--table", action="store_true", help="print the table of what is there")
    parser.add_argument("overrides", nargs="*", help="passed on to every training")
    arguments = parser.parse_args()
    common = ["logger=local", "callbacks.progress=null"]
    columns: Columns = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}

    @cache
    def trained(experiment: str, *extra: str) -> Path:
        options = [f"experiment={experiment}", f"seed={arguments.seed}", *common]
        options.append(f"interaction.scenes={arguments.scenes}")
        return run(*options, *extra, *arguments.overrides)[0]

    scored = [*common, f"benchmark.scenes={arguments.scenes}"]
    for label in arguments.columns:
        if not arguments.table and label not in columns:
            columns[label] = measured(COLUMNS[label], trained, scored)
            arguments.out.write_text(json.dumps(columns, indent=1, sort_keys=True) + "\n")
    print(tables(columns))


if __name__ == "__main__":
    main()
