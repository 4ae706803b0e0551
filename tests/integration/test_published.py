"""The neighbours' published recipes with narrow layers: two steps on rows as released."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from own_data import run_job
from test_paper_scale import ROWS, SHRUNK

from dress.artifact import Artifact
from dress.errors import InputError
from tests.data.released_rows import preference_row, prompt_row, vlfeedback_row, write_rows

NARROW = [*SHRUNK, "datamodule.groups_per_step=4", "callbacks.sample_table.rows=0"]


def steps(artifact: Artifact) -> set[int]:
    history = [json.loads(line) for line in (artifact.path / "metrics.jsonl").open()]
    return {record["step"] for record in history if "train/loss" in record}


def test_vlfeedback_to_dpo(tmp_path: Path) -> None:
    rows = [vlfeedback_row(number) for number in range(ROWS)]
    write_rows(tmp_path / "data", rows, name="vlfeedback_80k.jsonl", images="merged_images")
    artifact = run_job(
        tmp_path,
        "experiment=silkie_dpo_published",
        "data=vlfeedback",
        "trainer.log_every_n_steps=1",
        *NARROW,
    )
    assert steps(artifact) == {1, 2}
    assert artifact.metrics["val/loss"] == pytest.approx(0.693, abs=1e-2)  # such steps are small
    stored = {path.name for path in (artifact.path / "weights").glob("*.safetensors")}
    assert "lora-0.safetensors" in stored or "language.safetensors" in stored


def test_human_preferences_to_a_reward_model(tmp_path: Path) -> None:
    rows = [preference_row(number) for number in range(ROWS)]
    root = tmp_path / "data"
    write_rows(root, rows, name="llava_7b_v1_preference.json", images="train2017")
    command = ["experiment=llava_rlhf_rm_published", "data=llava_preference", *NARROW]
    captions = {f"{number}.jpg": [f"Thing {number}.", "On a table."] for number in range(ROWS)}
    (root / "image_to_caption.json").write_text(json.dumps(captions))
    told = run_job(
        tmp_path, *command, "data.captions=image_to_caption.json", "trainer.log_every_n_steps=1"
    )
    assert steps(told) == {1, 2} and 0 <= told.metrics["val/rewards/accuracy"] <= 1
    assert told.lineage["parents"]["data"]["name"].startswith("dress_candidates-")
    assert (told.path / "weights" / "scalar_head.safetensors").is_file()
    with pytest.raises(InputError, match="no facts"):
        run_job(tmp_path, *command)
    blind = run_job(tmp_path, *command, "datamodule.encoder.facts=false")
    assert blind.metrics["val/loss"] > 0


@pytest.mark.slow
def test_prompts_and_a_reward_model_to_ppo(tmp_path: Path) -> None:
    """From one stage 1, as published: the reward model's tokenizer is the policy's."""
    root = tmp_path / "data"
    rows = [preference_row(number) for number in range(ROWS)]
    write_rows(root, rows, name="llava_7b_v1_preference.json", images="train2017")
    asked = [prompt_row(number, caption_type=1 + number) for number in range(ROWS)]
    write_rows(root, asked, name="llava_ppo50k-aokvqa12k-vqa10k.json", images="train2017")
    names = [f"{prefix}{number}.jpg" for number in range(ROWS) for prefix in ("", "aok_")]
    (root / "image_to_caption.json").write_text(json.dumps({n: [f"About {n}."] for n in names}))
    told = "data.captions=image_to_caption.json"
    stage1 = run_job(tmp_path, "experiment=dress_stage1", "data=llava_preference", told, *NARROW)
    judge = run_job(
        tmp_path,
        "experiment=llava_rlhf_rm_published",
        "data=llava_preference",
        told,
        *NARROW,
        f"init_from='{stage1.path}'",
    )
    artifact = run_job(
        tmp_path,
        "experiment=llava_rlhf_ppo_published",
        "data=llava_prompts",
        told,
        "data.validation_share=0.3",
        *NARROW,
        f"init_from='{stage1.path}'",
        f"reward_from='{judge.path}'",
        "objective.rollouts.max_new_tokens=6",
        "objective.rollouts.max_unfinished=2",
        "objective.rollouts.epochs=1",
    )
    assert steps(artifact) == {2}  # one rollout, two minibatches
    assert artifact.metrics["ppo/rollouts"] == 1 and artifact.metrics["ppo/no_end_share"] > 0
    assert artifact.lineage["parents"]["reward"]["name"] == judge.name
    assert (artifact.path / "weights" / "lora-0.safetensors").is_file()
