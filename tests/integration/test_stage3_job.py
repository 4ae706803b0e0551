"""From nothing to stage 3, shortened: rollouts with feedback, training on them, evaluation."""

from __future__ import annotations

import json

import pytest
from test_main_job import EVALUATION, TINY, Done, Sandbox

from dress.data.shard_index import ShardIndex
from dress.types import Sample

SMALL = [
    *TINY,
    *EVALUATION,
    "interaction.scenes=3",
    "interaction.turns=2",
    "feedback.prompts=20",
]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    box = Sandbox(tmp_path_factory.mktemp("stage3"))
    box.prepare()
    return box


@pytest.fixture(scope="module")
def stage3(sandbox: Sandbox) -> Done:
    return sandbox.run("experiment=dress_stage3", *SMALL)


def test_the_chain_is_built_and_evaluated_over_turns(stage3: Done) -> None:
    for name in ("dress_stage2", "dress_refinements", "dress_stage3", "interaction_dress_stage3"):
        assert f"building {name}-" in stage3.output
    metrics = stage3.artifact.metrics
    for turn in range(3):
        assert 0 <= metrics[f"world/interaction/turn_{turn}"] <= 1
        assert 0 <= metrics[f"init/world/interaction/turn_{turn}"] <= 1
    assert "world/interaction/repaired" in metrics


def test_rollouts_hold_dialogues_in_which_the_refinement_is_the_next_turn(stage3: Done) -> None:
    lineage = stage3.artifact.lineage["parents"]["data"]["name"]
    folder = stage3.artifact.path.parent / lineage
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["rollout/dialogues"] == 80  # 20 prompts, twice under best and twice under none
    assert metrics["rollout/closed_by_reference"] > 0.9  # such a model repairs next to nothing
    index = ShardIndex.open(folder / "train")
    samples = [s for shard, n in enumerate(index.groups) for s in index.read_groups(shard, 0, n)]
    longest = 0
    for sample in samples:
        assert isinstance(sample, Sample) and len(sample.dialogues) == 4
        for dialogue in sample.dialogues:
            longest = max(longest, len(dialogue.turns))
            for before, after in zip(dialogue.turns, dialogue.turns[1:], strict=False):
                assert before.feedback and after.feedback
                assert after.user == before.feedback.refinement or after.model == before.model
    assert 5 <= longest <= 6  # four responses, the reference, and what false feedback repeats


def test_a_second_round_samples_from_the_first(sandbox: Sandbox, stage3: Done) -> None:
    again = sandbox.run("experiment=dress_stage2", "rounds=2", *SMALL)
    init = again.artifact.lineage["parents"]["init"]["name"]
    assert init.startswith("dress_stage2-") and init != again.artifact.path.name
    feedback = again.artifact.path.parent / again.artifact.lineage["parents"]["data"]["name"]
    lineage = json.loads((feedback / "lineage.json").read_text())
    assert lineage["parents"]["model"]["name"] == init
