"""Our training step beside TRL's on the same rows, in turns: samples a second, memory, other load.

    python benchmarks/speed/compare.py --cases sft_k4_64 --out docs/results/speed

Needs `pip install trl peft datasets`. Each side is a process that runs `--epochs` of them when it
is its turn and then waits, so both see the same machine; the first turn is warm-up. On a shared
machine seconds of CPU time say more than seconds on the wall; run it pinned and with one thread:

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/speed/compare.py
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from cases import CASES, Case, peer_rows, samples, tokenizer

from dress.version import code_version

HERE = Path(__file__).resolve().parent
SIDES = {
    "ours": ["ours.py"],
    "ours_cached": ["ours.py", "cached"],  # DPO with the reference's log-probabilities at hand
    "trl_tuned": ["peer.py", "tuned"],
    "trl_documented": ["peer.py", "documented"],
}
DOCUMENTED_REPEATS = 1  # it is slow, and not what is quoted
OF_TURN = ("wall_s", "cpu_s", "computed_tokens")  # what grows with the epochs of a turn
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "lightning", "open_clip_torch")


class Side:
    """One process that trains `epochs` at a time."""

    def __init__(self, case: str, script: str, *how: str, epochs: int) -> None:
        self.epochs = epochs
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / script), case, str(epochs), *how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(said := tempfile.TemporaryFile("w+")),
            text=True,
            env=os.environ | {"PYTHONPATH": str(HERE.parents[1]), "PYTHONWARNINGS": "ignore"},
        )
        self.said = said
        self.read()  # the warm-up

    def read(self) -> dict[str, float]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.said.seek(0)
            raise SystemExit(self.said.read()[-3000:])
        return json.loads(line)

    def turn(self) -> dict[str, float]:
        """Return what one epoch took on average."""
        self.say("go")
        return {k: v / self.epochs if k in OF_TURN else v for k, v in self.read().items()}

    def say(self, word: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.say("end")
        self.process.communicate()


def logical_tokens(case: Case) -> int:
    """All tokens of all sequences written out in full, image tokens included."""
    count, encode = 0, tokenizer()
    for row in peer_rows(case, samples(case)):
        ends = [text for name, text in row.items() if name not in ("images", "prompt")]
        lengths = [len(encode(row["prompt"] + end)["input_ids"]) for end in ends]
        count += sum(length - 1 + case.image_tokens for length in lengths)
    return count


def measured(name: str, *, repeats: int, epochs: int, sides: list[str]) -> dict[str, Any]:
    case = CASES[name]
    if case.objective != "dpo":
        sides = [side for side in sides if side != "ours_cached"]
    running = {side: Side(name, *SIDES[side], epochs=epochs) for side in sides}
    turns: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for repeat in range(repeats):
        for side, process in running.items():
            if side == "trl_documented" and repeat >= DOCUMENTED_REPEATS:
                continue
            turns[side].append(process.turn())
            print(name, repeat, side, turns[side][-1], flush=True)
    for process in running.values():
        process.end()
    tokens = logical_tokens(case)
    figures = {side: summary(rows, case, tokens) for side, rows in turns.items()}
    ratios = {
        f"{ours} / {peer}": {
            key: figures[ours][f"samples_per_{key}_s"] / figures[peer][f"samples_per_{key}_s"]
            for key in ("cpu", "wall")
        }
        for ours, peer in product(sides, sides)
        if ours.startswith("ours") and peer.startswith("trl")
    }
    record = {"case": vars(case), "logical_tokens": tokens, "epochs_of_a_turn": epochs}
    return record | {"ratios": ratios, "sides": figures, "epochs": turns}


def summary(rows: list[dict[str, float]], case: Case, tokens: int) -> dict[str, float]:
    cpu, wall = (median(row[f"{kind}_s"] for row in rows) for kind in ("cpu", "wall"))
    return {
        "samples_per_cpu_s": case.rows / cpu,
        "samples_per_wall_s": case.rows / wall,
        "logical_tokens_per_cpu_s": tokens / cpu,
        "computed_tokens": median(row["computed_tokens"] for row in rows),
        "cpu_s_low": min(row["cpu_s"] for row in rows),
        "cpu_s_high": max(row["cpu_s"] for row in rows),
        "other_load": median(row["other_load"] for row in rows),
        "peak_mb": max(row["peak_mb"] for row in rows),
    }


def machine() -> dict[str, Any]:
    names = [line.split(": ")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line]
    return {
        "date": date.today().isoformat(),
        "code_version": code_version(),
        "cpu": f"{names[0]}, {os.cpu_count()} cores, this run on {len(os.sched_getaffinity(0))}",
        "threads": int(os.environ.get("OMP_NUM_THREADS", 0)),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--epochs", type=int, default=1, help="in one turn of a side")
    parser.add_argument("--out", type=Path, help="folder of the records, one JSON file for a case")
    given = parser.parse_args()
    for name in given.cases:
        record = machine() | measured(
            name, repeats=given.repeats, epochs=given.epochs, sides=given.sides
        )
        print(json.dumps({name: record["ratios"]} | record["sides"], indent=1), flush=True)
        if given.out:
            given.out.mkdir(parents=True, exist_ok=True)
            (given.out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
