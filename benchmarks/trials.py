"""The same search for every method: five learning rates each, on the small world.

    python benchmarks/trials.py [overrides]
    python benchmarks/trials.py --table

A trial that is done is a JSON file under --out and is not run again; benchmarks/comparison.py takes
each method's best from there.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from comparison import Record, cell, lines, one_arm, read, write
from learning_rates import RATES, best_rate, trials

SEED = 100  # of the search; the report's seeds are others


def trial(folder: Path, arm: str, rate: float, scenes: int, common: list[str]) -> Record:
    try:
        return one_arm(folder, arm, SEED, scenes, [*common, f"optimizer.lr={rate:g}"])
    except subprocess.CalledProcessError as error:
        if error.returncode != 1:  # not stopped by its own checks
            raise
        return {"arm": arm, "stopped": f"exit status {error.returncode}"}


def table(folder: Path) -> str:
    rows = [["method", "learning rate", "mean of the three H", "taken"]]
    for arm in RATES:
        for rate, path in trials(folder, arm):
            record = read(path)
            found = cell(record, "mean") if "metrics" in record else record.get("stopped")
            taken = "yes" if rate == best_rate(folder, arm) else ""
            rows.append([arm, f"{rate:g}", found or "missing", taken])
    return lines(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("docs/results/trials"))
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--table", action="store_true", help="print the table of what is there")
    parser.add_argument("overrides", nargs="*", help="passed on to every job")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    common = ["data=world_mini", "logger=local", "callbacks.progress=null", *arguments.overrides]
    common.append(f"paths.artifacts={arguments.artifacts}")
    for arm in RATES:
        for rate, path in trials(arguments.out, arm):
            if not arguments.table and not path.exists():
                write(path, trial(arguments.out, arm, rate, arguments.scenes, common))
    print(table(arguments.out))


if __name__ == "__main__":
    main()
