"""The evidence of docs/results.md: the main job, its controls and their evaluations, per seed.

    python benchmarks/main_result.py --seeds 0 1 2 --scenes 1000 --out docs/results/main.json

Everything is an artifact, so an interrupted run goes on where it stopped; a seed that is already in
the file is not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

TARGETS = ("best", "none", "worst", "1", "2", "3", "4")
CONTROLS = ("sft_continued", "best_of_k")


def run(*arguments: str) -> tuple[Path, float]:
    """Run one job; return its artifact and the minutes it took."""
    began = time.time()
    command = [sys.executable, "run.py", *arguments]
    print("$ python", *command[1:], flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("artifact: "), last
    return Path(last.removeprefix("artifact: ")), (time.time() - began) / 60


def evaluate(artifact: Path, target: str, common: list[str], *extra: str) -> dict[str, float]:
    folder, _ = run(
        "job=evaluate", f"artifact={artifact}", f"condition.target={target}", *common, *extra
    )
    return json.loads((folder / "metrics.json").read_text())


def lineage(artifact: Path) -> dict[str, Any]:
    return json.loads((artifact / "lineage.json").read_text())


def one_seed(seed: int, scenes: int, common: list[str], *, controls: bool) -> dict[str, object]:
    """Stage 1 beside stage 2 and, with `controls`, every condition, wrong images and plain SFT."""
    scored = [*common, f"benchmark.scenes={scenes}"]
    stage2, minutes = run("experiment=dress_stage2", f"seed={seed}", *scored)
    stage1 = stage2.parent / lineage(stage2)["parents"]["init"]["name"]
    result: dict[str, object] = {
        "seed": seed,
        "scenes": scenes,
        "minutes": round(minutes, 1),
        "code_version": lineage(stage2)["code_version"],
        "date": date.today().isoformat(),
    }
    result["stage1"] = evaluate(stage1, "none", scored)
    for target in TARGETS if controls else TARGETS[:1]:
        result[f"stage2_{target}"] = evaluate(stage2, target, scored)
    if not controls:
        return result
    for images in ("shuffled", "blank"):
        result[f"stage2_best_{images}"] = evaluate(
            stage2, "best", scored, f"benchmark.images={images}"
        )
    for control in CONTROLS:
        artifact, _ = run(f"experiment={control}", f"seed={seed}", *common)
        result[control] = evaluate(artifact, "none", scored)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--controls", type=int, nargs="*", default=[0], help="seeds with controls")
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("docs/results/main.json"))
    parser.add_argument("overrides", nargs="*", help="passed on to every job")
    arguments = parser.parse_args()
    common = ["logger=local", "callbacks.progress=null", *arguments.overrides]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    done = {(result["seed"], result["scenes"]) for result in results}
    for seed in arguments.seeds:
        if (seed, arguments.scenes) in done:
            continue
        controls = seed in arguments.controls
        results.append(one_seed(seed, arguments.scenes, common, controls=controls))
        arguments.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
