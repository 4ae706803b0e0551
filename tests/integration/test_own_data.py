"""Real data through its jobs: photographs with VLSafe, and dialogues of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from own_data import half_written, run_job

from dress.data.shard_index import ShardIndex
from dress.files import read_lines
from dress.loading import load
from dress.types import Sample
from tests.data.coco_files import photograph, shared_data, write_coco
from tests.data.nlf_files import nlf_row, write_nlf
from tests.data.test_source_vlsafe import ROWS


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Three photographs with captions and objects, and two requests about absent ones."""
    root = write_coco(tmp_path / "data")
    (root / "vlsafe").mkdir()
    lines = "\n".join(map(json.dumps, ROWS))
    (root / "vlsafe/harmlessnss_alignment.jsonl").write_text(lines)
    return tmp_path


def groups(directory: Path) -> list[Sample]:
    found = []
    for split in ("train", "validation"):
        index = ShardIndex.open(directory / split)
        found += [s for s in index.read_groups(0, 0, int(index.groups[0])) if isinstance(s, Sample)]
    return found


def test_photographs_give_stage_2_and_a_table(photographs: Path) -> None:
    artifact = run_job(
        photographs, "experiment=dress_stage2", "data=photographs", "source.image_fallback=true"
    )
    feedback = next((photographs / "artifacts").glob("dress_feedback-*"))
    samples = groups(feedback)
    assert {s.id.split("-")[0] for s in samples} == {"coco/coco", "vlsafe/vlsafe"}
    assert {s.annotations.get("image_fallback", True) for s in samples} == {True}
    assert all(d.turns[-1].feedback for s in samples for d in s.dialogues)
    table = list(read_lines(artifact.path / "samples.jsonl"))
    assert {row["condition"] for row in table} == {"best"}
    assert all("honesty 4: Says only what" in row["critique"] and row["truth"] for row in table)
    assert "data:image/jpeg" in (artifact.path / "samples.html").read_text()
    assert artifact.metrics["val/loss"] > 0
    assert not half_written(photographs)
    assert isinstance(load(artifact.path).respond(photograph(1), "What?", max_new_tokens=2), str)


def test_photographs_give_stage_1(photographs: Path) -> None:
    artifact = run_job(
        photographs, "experiment=dress_stage1", "data=photographs", "source.image_fallback=true"
    )
    assert artifact.metrics["val/loss"] > 0


@pytest.mark.parametrize("stage", ["dress_stage1", "dress_stage2"])
def test_six_dialogues_of_ones_own(tmp_path: Path, stage: str) -> None:
    write_nlf(tmp_path / "data", [nlf_row(number) for number in range(6)])
    artifact = run_job(tmp_path, f"experiment={stage}", "data=lvlm_nlf")
    data = next(
        path
        for path in (tmp_path / "artifacts").iterdir()
        if path.name.startswith(("dress_instructions-", "dress_feedback-"))
    )
    samples = groups(data)
    assert len(samples) == 6
    ratings = [
        [turn.feedback.judgements["helpfulness"].rating for turn in d.turns if turn.feedback]
        for sample in samples
        for d in sample.dialogues
    ]
    assert ratings == [[2, 4] if stage == "dress_stage2" else []] * 6
    (row, *_) = read_lines(artifact.path / "samples.jsonl")
    assert row["question"] == "What is there?"
    assert row["truth"].endswith("lies there.")


@pytest.mark.slow
def test_a_language_model_from_a_folder(tmp_path: Path) -> None:
    """As a pretrained one from the hub would be: its own tokenizer, LoRA, and nothing else."""
    write_nlf(tmp_path / "data", [nlf_row(number) for number in range(6)])
    small = ["experiment=dress_stage2", "data=lvlm_nlf"]
    first = run_job(tmp_path, *small)
    assistant, folder = load(first.path), tmp_path / "language"
    assistant.model.language.save_pretrained(folder)
    assistant.processor.tokenizer.save_pretrained(folder)
    artifact = run_job(
        tmp_path,
        *small,
        "model=clip_b32_tinyllama",
        "model/vision=tiny",
        f"model.language.name={folder}",
        "model.language.lora.r=2",
        "model.tokenizer.vocab_size=null",
        "model.max_length=512",
    )
    stored = {path.name for path in (artifact.path / "weights").glob("*.safetensors")}
    assert stored == {"vision.safetensors", "projector.safetensors", "lora-0.safetensors"}
    assert isinstance(load(artifact.path).respond(photograph(1), "What?", max_new_tokens=2), str)


def test_real_photographs_make_shards(tmp_path: Path) -> None:
    root = shared_data("coco").parent
    artifact = run_job(
        tmp_path,
        "experiment=dress_feedback",
        "data=photographs",
        f"data.root={root}",
        "source.image_fallback=true",
    )
    metrics = artifact.metrics
    assert metrics["feedback/responses"] == 72 * 3 + 200 * 2
    assert metrics["shards/train"] + metrics["shards/validation"] == 272
    assert metrics["shards/validation"] > 10
