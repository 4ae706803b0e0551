"""What carries the gain: arms on the small world, each one setting off the default.

    python benchmarks/ablations.py --out docs/results/ablations [overrides]
    python benchmarks/ablations.py --out docs/results/ablations --table

A finished arm is a JSON file under --out and is not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

Arms = Mapping[str, Mapping[str, tuple[str, ...]]]
STAGE_2 = ("experiment=dress_stage2", "data=world_mini")
STAGE_3 = ("experiment=dress_stage3", "data=world_mini")
ARMS: Arms = {
    "condition": {
        "none": ("experiment=sft_continued", "data=world_mini"),
        "score": (*STAGE_2, "condition=score"),
        "critique": (*STAGE_2, "condition=critique"),
        "both": STAGE_2,
        "feedback of another response": (*STAGE_2, "datamodule.encoder.feedback_of=other"),
    },
    "dropout of the condition": {
        "0": (*STAGE_2, "condition.dropout=0"),
        "0.1": STAGE_2,
        "0.5": (*STAGE_2, "condition.dropout=0.5"),
    },
    "dropout of single aspects": {
        "0": (*STAGE_2, "condition.aspect_dropout=0"),
        "0.3": STAGE_2,
    },
    "weight of perfect responses": {
        "1": (*STAGE_2, "data.perfect_weight=1"),
        "6": STAGE_2,
        "20": (*STAGE_2, "data.perfect_weight=20"),
    },
    "captions among the responses": {
        "0": (*STAGE_2, "data.replay.stage2=0"),
        "0.12": STAGE_2,
    },
    "annotator noise": {
        "0": (*STAGE_2, "data.noise=0"),
        "0.05": STAGE_2,
        "0.1": (*STAGE_2, "data.noise=0.1"),
        "0.3": (*STAGE_2, "data.noise=0.3"),
    },
    "prompts": {
        "0.1": (*STAGE_2, "feedback.prompts=100"),
        "0.3": (*STAGE_2, "feedback.prompts=300"),
        "1": STAGE_2,
    },
    "responses per prompt": {
        "1": (*STAGE_2, "data.samples=1"),
        "2": (*STAGE_2, "data.samples=2"),
        "4": STAGE_2,
        "8": (*STAGE_2, "data.samples=8"),
    },
    "critiques name": {
        "objects": STAGE_2,
        "kinds of fault": (*STAGE_2, "annotator.critique=kinds"),
    },
    "rounds": {"1": STAGE_2, "2": (*STAGE_2, "rounds=2")},
}
FIGURES = ("helpfulness", "honesty", "harmlessness", "mean")
TURN_ARMS: Arms = {
    "turns learned": {
        "sound": STAGE_3,
        "all": (*STAGE_3, "datamodule.encoder.loss_turns=all"),
        "last": (*STAGE_3, "datamodule.encoder.loss_turns=last"),
        "improved": (*STAGE_3, "datamodule.encoder.loss_turns=improved"),
        "feedback left out": ("experiment=stage3_no_feedback", "data=world_mini"),
    },
    "dialogues with false feedback": {
        "0": (*STAGE_3, "feedback.false_share=0"),
        "0.2": (*STAGE_3, "feedback.false_share=0.2"),
        "0.4": STAGE_3,
    },
    "weight of later responses": {
        "1": (*STAGE_3, "datamodule.encoder.later_weight=1"),
        "4": STAGE_3,
    },
    "captions among the dialogues": {
        "0": (*STAGE_3, "data.replay.stage3=0"),
        "0.12": STAGE_3,
    },
    "one stage": {
        "stage 3 after stage 2": STAGE_3,
        "joint": ("experiment=dress_joint", "data=world_mini"),
    },
}
TURN_FIGURES = tuple(
    f"interaction/{name}" for name in ("turn_0", "turn_1", "turn_4", "repaired", "overcorrection")
)
TABLES = ((ARMS, FIGURES, "world/mean"), (TURN_ARMS, TURN_FIGURES, "world/interaction/turn_4"))


def arm_file(folder: Path, overrides: tuple[str, ...]) -> Path:
    name = "+".join(o.replace("datamodule.encoder.", "") for o in overrides)
    return folder / f"{name.replace('experiment=', '').replace('=', '-')}.json"


def run(overrides: tuple[str, ...], common: list[str], path: Path) -> None:
    command = [sys.executable, "run.py", *overrides, *common]
    print("$ python", *command[1:], flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    artifact = Path(done.stdout.strip().splitlines()[-1].removeprefix("artifact: "))
    metrics = json.loads((artifact / "metrics.json").read_text())
    kept = {name: value for name, value in metrics.items() if "world/" in name}
    version = json.loads((artifact / "lineage.json").read_text())["code_version"]
    record = {"overrides": overrides, "code_version": version, "metrics": kept}
    path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def cell(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.3f} [{metrics[f'{name}_low']:.3f}, {metrics[f'{name}_high']:.3f}]"


def table(folder: Path, arms: Arms, figures: Sequence[str], before: str) -> str:
    """Lay out the arms; the last column is the model that training began with."""
    names = [figure.rpartition("/")[2] for figure in (*figures, before)]
    lines = [f"| ablation | arm | {' | '.join(names)} before |", "|---" * (2 + len(names)) + "|"]
    for ablation, ways in arms.items():
        for arm, overrides in ways.items():
            path = arm_file(folder, overrides)
            if path.exists():
                metrics = json.loads(path.read_text())["metrics"]
                cells = [cell(metrics, f"world/{figure}") for figure in figures]
                cells.append(f"{metrics[f'init/{before}']:.3f}")
            else:
                cells = ["missing"] * len(names)
            lines.append(f"| {ablation} | {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/results/ablations"))
    parser.add_argument("--table", action="store_true", help="print the table of what is there")
    parser.add_argument("overrides", nargs="*", help="passed on to every job")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    common = ["logger=local", "callbacks.progress=null", *arguments.overrides]
    both = [*ARMS.values(), *TURN_ARMS.values()]
    for overrides in dict.fromkeys(overrides for ways in both for overrides in ways.values()):
        path = arm_file(arguments.out, overrides)
        if not arguments.table and not path.exists():
            run(overrides, common, path)
    for arms, figures, before in TABLES:
        print(table(arguments.out, arms, figures, before), end="\n\n")


if __name__ == "__main__":
    main()
