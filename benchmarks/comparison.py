"""DRESS beside its neighbours: every method from the same stage 1, on the same prompts and scenes.

    python benchmarks/comparison.py --seeds 0 1 2 --scenes 1000 [overrides]
    python benchmarks/comparison.py --table

An arm that is done is a JSON file under --out and is not run again; what its training needs is an
artifact and is shared. Each method has the learning rate of its experiment, with --trials the one
that benchmarks/trials.py found best. Tokens and minutes are those of all that an arm needs beyond
stage 1, its data and its reward model included.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import mean
from typing import Any

from learning_rates import best_rate

from dress.artifact import HISTORY, Artifact
from dress.data.shard_index import read_all
from dress.data.split import SPLITS
from dress.evaluation.statistics import paired
from dress.files import read_lines
from dress.jobs.report import combine_of
from dress.loading import artifact_tokenizer
from dress.reporting.columns import Evaluation
from dress.reporting.runs import timed

BEFORE, OURS = "stage 1", "DRESS 2"
NO_FACTS = "lineage.reward=llava_rlhf_rm_no_facts"
MDPO = ("objective.image_term=1", "objective.anchor=1", "datamodule.encoder.corrupted=crop")
ARMS: Mapping[str, tuple[str, tuple[str, ...]]] = {  # the condition it is asked under, overrides
    BEFORE: ("none", ("experiment=dress_stage1",)),
    "SFT continued": ("none", ("experiment=sft_continued",)),
    "best of K": ("none", ("experiment=best_of_k",)),
    "score-conditioned": ("best", ("experiment=dress_stage2", "condition=score")),
    OURS: ("best", ("experiment=dress_stage2",)),
    "DRESS 3": ("best", ("experiment=dress_stage3",)),
    "DRESS joint": ("best", ("experiment=dress_joint",)),
    "DRESS 2, two rounds": ("best", ("experiment=dress_stage2", "rounds=2")),
    "SDPO": ("none", ("experiment=sdpo",)),
    "DPO": ("none", ("experiment=silkie_dpo",)),
    "DPO + mDPO": ("none", ("experiment=silkie_dpo", *MDPO)),
    "RM + PPO, facts": ("none", ("experiment=llava_rlhf_ppo",)),
    "RM + PPO, no facts": ("none", ("experiment=llava_rlhf_ppo", NO_FACTS)),
    "GRPO, facts": ("none", ("experiment=grpo",)),
    "GRPO, no facts": ("none", ("experiment=grpo", NO_FACTS)),
}
FIGURES = ("helpfulness", "honesty", "harmlessness", "mean")
TRAINED, GENERATED = "train/trained_tokens", ("train/generated_tokens", "rollout/generated_tokens")
CURVES = ("ppo/score", "ppo/true_score", "ppo/kl", "ppo/response_length")
EVALUATED = ("data", "benchmark", "generation", "paths", "logger", "callbacks", "trainer", "debug")
DONE = re.compile(r"^(\S+) done in (\d+) s$", re.MULTILINE)
Record = dict[str, Any]


def arm_file(folder: Path, arm: str, seed: int) -> Path:
    return folder / f"{re.sub(r'[^a-z0-9]+', '_', arm.lower())}-{seed}.json"


def minutes_file(folder: Path) -> Path:
    return folder / "minutes.json"


def read(path: Path) -> Record:
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, record: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def run(folder: Path, *arguments: str) -> Artifact:
    """Run one job, note how long each artifact took, and return the last one."""
    command = [sys.executable, "run.py", *arguments]
    print("$ python", *command[1:], flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    took = {name: round(int(seconds) / 60, 2) for name, seconds in DONE.findall(done.stdout)}
    write(minutes_file(folder), read(minutes_file(folder)) | took)
    return Artifact.open(done.stdout.strip().splitlines()[-1].removeprefix("artifact: "))


def beyond_stage_1(artifact: Artifact) -> Iterator[Artifact]:
    """Yield an artifact and what it was made from, each once, up to stage 1 and the prompts."""
    left, seen = [artifact], set[str]()
    while left:
        found = left.pop()
        if found.name in seen or found.name.startswith(("dress_stage1-", "dress_prompts-")):
            continue
        seen.add(found.name)
        yield found
        parents = found.lineage["parents"].values()
        left += [Artifact.open(found.path.parent / parent["name"]) for parent in parents]


def cost(artifact: Artifact, minutes: Mapping[str, float]) -> Record:
    """Sum the tokens and minutes; None for minutes where an artifact was made by another run."""
    chain = list(beyond_stage_1(artifact))
    took = [minutes.get(each.name) for each in chain]
    return {
        "trained_tokens": sum(each.metrics.get(TRAINED, 0.0) for each in chain),
        "generated_tokens": sum(map(generated, chain)),
        "minutes": None if None in took else round(sum(t for t in took if t is not None), 1),
    }


def generated(artifact: Artifact) -> float:
    """Count the tokens sampled for an artifact itself; older shards have no count: what they hold.

    Of a dialogue with revisions the shards hold the best candidate alone.
    """
    counts = [artifact.metrics[name] for name in GENERATED if name in artifact.metrics]
    if counts or artifact.lineage["kind"] != "shards":
        return sum(counts)
    parents = artifact.lineage["parents"]
    if "model" not in parents:
        return 0.0
    tokenizer = artifact_tokenizer(Artifact.open(artifact.path.parent / parents["model"]["name"]))
    texts = [
        turn.model or ""
        for split in SPLITS
        for sample in read_all(artifact.path / split)
        for dialogue in sample.dialogues
        for turn in dialogue.turns
    ]
    return float(sum(len(ids) + 1 for ids in tokenizer(texts)["input_ids"]))


def curves(artifact: Artifact) -> dict[str, list[float]]:
    """Return the figures of every rollout, none where a method has no rollouts."""
    history = timed(read_lines(artifact.path / HISTORY))
    found = {name: [row[name] for row in history if name in row] for name in CURVES}
    return {name: values for name, values in found.items() if values}


def judged_by(artifact: Artifact) -> dict[str, float]:
    """Return the figures on held-out pairs of the reward model that an artifact learned from."""
    if (parent := artifact.lineage["parents"].get("reward")) is None:
        return {}
    judge = Artifact.open(artifact.path.parent / parent["name"])
    return {name: value for name, value in judge.metrics.items() if name.startswith("val/")}


def one_arm(folder: Path, arm: str, seed: int, scenes: int, common: Sequence[str]) -> Record:
    target, overrides = ARMS[arm]
    model = run(folder, *overrides, f"seed={seed}", "compare=[]", *common)
    evaluation = run(
        folder,
        "job=evaluate",
        f"artifact={model.path}",
        f"condition.target={target}",
        f"benchmark.scenes={scenes}",
        *(o for o in common if re.split(r"[./=@]", o.lstrip("+~"))[0] in EVALUATED),
    )
    rewards = {n: v for n, v in model.metrics.items() if n.startswith(("ppo/", "val/"))}
    return {
        "arm": arm,
        "seed": seed,
        "scenes": scenes,
        "overrides": [o for o in (*overrides, *common) if not o.startswith("paths.")],
        "code_version": model.lineage["code_version"],
        "date": date.today().isoformat(),
        "model": model.name,
        "evaluation": evaluation.name,
        "metrics": {n: v for n, v in evaluation.metrics.items() if n.startswith("world/")},
        "training": rewards,
        "curves": curves(model),
        "reward_model": judged_by(model),
        **cost(model, read(minutes_file(folder))),
    }


def compare(one: Record, other: Record, artifacts: Path) -> Record | None:
    """Return the paired differences other - one of the aspects; None where rows are gone."""
    paths = [artifacts / record["evaluation"] for record in (one, other)]
    if not all(path.is_dir() for path in paths):
        return None
    first, second = (
        Evaluation(artifact, combine_of(artifact)) for artifact in map(Artifact.open, paths)
    )
    if first.counts is None or second.counts is None or first.combine is None:
        return None
    found = paired(first.counts, second.counts, first.combine)
    return {
        name: {"value": d.value, "low": d.low, "high": d.high, "p": d.p}
        for name in FIGURES
        if (d := found.get(f"world/{name}")) is not None
    }


def add_differences(folder: Path, seed: int, artifacts: Path) -> None:
    """Write into each arm of a seed how it differs from stage 1 and from DRESS."""
    for arm in ARMS:
        path = arm_file(folder, arm, seed)
        if not (record := read(path)):
            continue
        for base in (BEFORE, OURS):
            other = read(arm_file(folder, base, seed))
            if arm != base and other and (found := compare(other, record, artifacts)):
                record.setdefault("difference", {})[base] = found
        write(path, record)


def cell(record: Record, name: str) -> str:
    value, low, high = (record["metrics"][f"world/{name}{end}"] for end in ("", "_low", "_high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def difference(record: Record, base: str) -> str:
    found = record.get("difference", {}).get(base, {}).get("mean")
    if found is None:
        return "-"
    return f"{found['value']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}] p={found['p']:.3f}"


def spent(record: Record) -> list[str]:
    tokens = [f"{record[f'{kind}_tokens'] / 1e3:.0f}" for kind in ("trained", "generated")]
    minutes = record["minutes"]
    return [*tokens, "-" if minutes is None else f"{minutes:.1f}"]


def lines(rows: Sequence[Sequence[str]]) -> str:
    header, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *body])


def seed_table(folder: Path, seed: int) -> str:
    """Lay out one seed: 95 % intervals by bootstrap over scenes, paired differences of the mean."""
    ends = ["- stage 1", "- DRESS 2", "trained, k", "generated, k", "minutes"]
    rows = [["arm", *FIGURES, *ends]]
    for arm in ARMS:
        if record := read(arm_file(folder, arm, seed)):
            differences = [difference(record, base) for base in (BEFORE, OURS)]
            rows.append([arm, *(cell(record, f) for f in FIGURES), *differences, *spent(record)])
        else:
            rows.append([arm, *["missing"] * (len(rows[0]) - 1)])
    return lines(rows)


def summary(folder: Path, seeds: Sequence[int]) -> str:
    """Lay out the means over seeds, with the least and the greatest of them."""
    rows = [["arm", "seeds", *FIGURES]]
    for arm in ARMS:
        records = [r for seed in seeds if (r := read(arm_file(folder, arm, seed)))]
        columns = [[r["metrics"][f"world/{name}"] for r in records] for name in FIGURES]
        cells = [f"{mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in columns if v]
        rows.append([arm, str(len(records)), *(cells or ["missing"] * len(FIGURES))])
    return lines(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--out", type=Path, default=Path("docs/results/comparison"))
    parser.add_argument("--trials", type=Path, help="take the rates that did best there")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--table", action="store_true", help="print the tables of what is there")
    parser.add_argument("overrides", nargs="*", help="passed on to every job")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    common = ["logger=local", "callbacks.progress=null", *arguments.overrides]
    common.append(f"paths.artifacts={arguments.artifacts}")
    for seed in arguments.seeds:
        for arm in arguments.arms:
            path = arm_file(arguments.out, arm, seed)
            if not arguments.table and not path.exists():
                rate = best_rate(arguments.trials, arm) if arguments.trials else None
                options = common if rate is None else [*common, f"optimizer.lr={rate:g}"]
                write(path, one_arm(arguments.out, arm, seed, arguments.scenes, options))
        add_differences(arguments.out, seed, arguments.artifacts)
        print(f"seed {seed}\n\n{seed_table(arguments.out, seed)}", end="\n\n", flush=True)
    print(summary(arguments.out, arguments.seeds))


if __name__ == "__main__":
    main()
