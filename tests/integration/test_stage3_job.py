"""From nothing to stage 3, shortened: rollouts with feedback, training on them, evaluation.

That run is logged to W&B, offline, so that the dashboard can be compared with what it holds.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import wandb_file
from PIL import Image
from test_main_job import EVALUATION, ROOT, TINY, Done, Sandbox

from dress.data.shard_index import ShardIndex
from dress.reporting.dashboard import SECTIONS, TURNS, home
from dress.reporting.runs import RunData, open_runs
from dress.types import Sample
from tests.processes import Process

SMALL = [
    *TINY,
    *EVALUATION,
    "interaction.scenes=3",
    "interaction.turns=2",
    "feedback.prompts=20",
    "callbacks=default",
    "callbacks.progress=null",
    "callbacks.sample_table.rows=2",
    "callbacks.condition_ratings.prompts=2",
]
LOCAL = [*SMALL, "logger=local"]
STAGE3 = [
    "experiment=dress_stage3",
    "trainer.log_every_n_steps=2",
    "datamodule.encoder.loss_turns=all",  # such a model says next to nothing that is sound at first
    "data.noise=0",  # an oracle that errs calls some faults repaired
    "data.replay.stage2=0",  # captions teach such a model to repair one or another
    *SMALL,
    "logger=default",
    "logger.wandb.mode=offline",
]
# what a run may lack: rejects (tests/lit), and responses of this model that are perfect at once
SOMETIMES = {"data/rejects/*", "world/interaction/overcorrection"}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    box = Sandbox(tmp_path_factory.mktemp("stage3"))
    box.prepare()
    return box


@pytest.fixture(scope="module")
def stage3(sandbox: Sandbox) -> Done:
    return sandbox.run_forked(*STAGE3)


@pytest.fixture(scope="module")
def runs(sandbox: Sandbox, stage3: Done) -> list[RunData]:
    """The chain of trained models, in order."""
    stages = (f"dress_stage{number}-*" for number in range(4))
    folders = [next((sandbox.folder / "artifacts").glob(stage)) for stage in stages]
    return open_runs([str(folder) for folder in folders])


@pytest.fixture(scope="module")
def every(sandbox: Sandbox, runs: list[RunData]) -> list[RunData]:
    """That chain, what learns from preferences, and a policy."""
    # ratings that differ, so that some validation pair is there
    more = ["feedback.prompts=null", "feedback.samples=4", "data.noise=0.5"]
    done = sandbox.run_forked("experiment=silkie_dpo", "trainer.log_every_n_steps=2", *LOCAL, *more)
    # models of a few steps do not stop
    short = ["objective.rollouts.max_unfinished=2", "objective.rollouts.max_new_tokens=8"]
    policy = sandbox.run_forked(
        "experiment=llava_rlhf_ppo", "trainer.log_every_n_steps=1", *LOCAL, *more, *short
    )
    return [*runs, *open_runs([str(done.artifact.path), str(policy.artifact.path)])]


@pytest.mark.slow
def test_everything_that_a_run_logs_has_one_place_on_the_dashboard(every: list[RunData]) -> None:
    logged = {name for run in every for name in run.logged()}
    assert len(logged) > 100
    rated = {f"val/rating/best/{a}" for a in ("helpfulness", "honesty", "harmlessness")}
    assert {n: len(home(n)) for n in logged if len(home(n)) != 1 + (n in rated)} == {}


@pytest.mark.slow
def test_everything_on_the_dashboard_is_logged(every: list[RunData]) -> None:
    def found(kind: str, metric: str) -> bool:
        if kind == "steps":
            return any(run.curves(metric) for run in every)
        if kind == "turns":
            return any(run.over_turns(metric) for run in every)
        if kind == "bars":
            return any(run.final(metric) and run.final(f"init/{metric}") for run in every)
        return any(metric in run.logged() and run.samples(2) for run in every)

    panels = [panel for section in SECTIONS for panel in section.panels]
    named = {(panel.kind, metric) for panel in panels for metric in panel.metrics}
    assert {metric for kind, metric in named if not found(kind, metric)} == SOMETIMES


@pytest.mark.slow
def test_the_wandb_run_holds_the_same(runs: list[RunData]) -> None:
    run = runs[-1]
    files = sorted((run.artifact.path / "wandb").glob("offline-run-*/*.wandb"))
    assert len({file.name for file in files}) == 1  # one run: of training, then of evaluation
    rows = [row for file in files for row in wandb_file.history(file)]
    names = {name for row in rows for name in row}
    assert {name for name in run.logged() if name != "val/samples"} <= names
    assert "val/samples/artifact_path" in names
    for name, value in run.artifact.metrics.items():
        if "world/" in name:
            assert [json.loads(row[name]) for row in rows if name in row] == [value]
    turns = [row for row in rows if TURNS in row]
    assert [json.loads(row[TURNS]) for row in turns] == [0, 1, 2]
    for row in turns:
        value = run.artifact.metrics[f"world/interaction/turn_{row[TURNS]}"]
        assert json.loads(row["world/interaction/turn"]) == value


def test_nothing_is_logged_twice(sandbox: Sandbox, stage3: Done) -> None:
    before = sorted((stage3.artifact.path / "wandb").iterdir())
    again = sandbox.run_forked(*STAGE3)
    assert again.artifact.path == stage3.artifact.path
    assert sorted((stage3.artifact.path / "wandb").iterdir()) == before


def test_the_dashboard_is_drawn(runs: list[RunData], tmp_path: Path) -> None:
    def draw(*folders: str, out: str) -> tuple[int | None, str]:
        arguments = ["picture", *folders, "--out", str(tmp_path / out)]
        script = ROOT / "benchmarks" / "dashboard.py"
        process = Process(script, arguments, environment={"PYTHONPATH": str(ROOT)})
        _, errors = process.communicate(180)
        return process.returncode, errors

    folders = [str(run.artifact.path) for run in runs]
    assert draw(*folders, out="all.png") == draw(folders[0], out="one.png") == (0, "")
    every, one = (Image.open(tmp_path / name) for name in ("all.png", "one.png"))
    assert every.size[0] == one.size[0] == 1280
    assert every.size[1] > one.size[1] + 600  # stage 0 has neither evaluations nor conditions
    data = str(runs[-1].artifact.path.parent / runs[-1].artifact.lineage["parents"]["data"]["name"])
    code, errors = draw(data, out="none.png")
    assert code == 1 and "Traceback" not in errors
    assert errors.startswith("error: ") and "holds shards, not a model" in errors


def test_the_chain_is_built_and_evaluated_over_turns(stage3: Done) -> None:
    for name in ("dress_stage2", "dress_refinements", "dress_stage3", "interaction_dress_stage3"):
        assert f"building {name}-" in stage3.output
    metrics = stage3.artifact.metrics
    for turn in range(3):
        assert 0 <= metrics[f"world/interaction/turn_{turn}"] <= 1
        assert 0 <= metrics[f"init/world/interaction/turn_{turn}"] <= 1
    assert "world/interaction/repaired" in metrics


def test_it_ends_with_a_report_on_what_it_compared(stage3: Done) -> None:
    (line,) = (row for row in stage3.output.splitlines() if row.startswith("report: "))
    page = (stage3.artifact.path.parent.parent / line.removeprefix("report: ")).read_text()
    assert "dress_stage2 best" in page and "dress_stage3 best" in page


def test_rollouts_hold_dialogues_in_which_the_refinement_is_the_next_turn(stage3: Done) -> None:
    lineage = stage3.artifact.lineage["parents"]["data"]["name"]
    folder = stage3.artifact.path.parent / lineage
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["rollout/dialogues"] == 120  # 20 prompts, twice under best, none and worst
    assert metrics["rollout/closed_by_reference"] > 0.9  # such a model repairs next to nothing
    index = ShardIndex.open(folder / "train")
    samples = [s for shard, n in enumerate(index.groups) for s in index.read_groups(shard, 0, n)]
    longest = 0
    for sample in samples:
        assert isinstance(sample, Sample) and len(sample.dialogues) == 6
        for dialogue in sample.dialogues:
            longest = max(longest, len(dialogue.turns))
            for before, after in zip(dialogue.turns, dialogue.turns[1:], strict=False):
                assert before.feedback and after.feedback
                assert after.user == before.feedback.refinement or after.model == before.model
    assert longest == 6  # five responses, then the reference


def test_the_same_faults_open_the_dialogues_of_stage_2_and_3(
    sandbox: Sandbox, stage3: Done
) -> None:
    """They are sampled once, from the stage-1 model that both come from."""
    stage2 = stage3.artifact.path.parent / stage3.artifact.lineage["parents"]["init"]["name"]
    found = []
    for model in (stage2, stage3.artifact.path):
        done = sandbox.run_forked(
            *("job=evaluate", f"artifact={model}", "benchmark=interaction"),
            *("benchmark.first=faulty", "benchmark.scenes=2", "benchmark.turns=1"),
            *("generation.max_new_tokens=8", "feedback.max_new_tokens=8", "logger=local"),
        )
        rows = (done.artifact.path / "responses.jsonl").read_text().splitlines()
        found.append((done.artifact.lineage["parents"]["openings"]["name"], rows, done.artifact))
    (openings, rows, evaluation), (same, others, _) = found
    assert openings == same and openings.startswith("dress_openings-")
    lineage = json.loads((stage2.parent / openings / "lineage.json").read_text())
    assert lineage["parents"]["model"]["name"].startswith("dress_stage1-")
    first = [json.loads(row)["response"] for row in rows if json.loads(row)["turn"] == 0]
    assert first == [json.loads(r)["response"] for r in others if json.loads(r)["turn"] == 0]
    assert "world/interaction/use_of_feedback" in evaluation.metrics


@pytest.mark.slow
def test_a_second_round_samples_from_the_first(sandbox: Sandbox, stage3: Done) -> None:
    again = sandbox.run_forked("experiment=dress_stage2", "rounds=2", *LOCAL)
    init = again.artifact.lineage["parents"]["init"]["name"]
    assert init.startswith("dress_stage2-") and init != again.artifact.path.name
    feedback = again.artifact.path.parent / again.artifact.lineage["parents"]["data"]["name"]
    lineage = json.loads((feedback / "lineage.json").read_text())
    assert lineage["parents"]["model"]["name"] == init
