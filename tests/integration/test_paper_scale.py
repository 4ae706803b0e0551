"""The paper's recipe with narrow layers: every stage, two steps, on rows as released."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from own_data import CONF, run_job

from dress.artifact import Artifact
from dress.jobs.job import Job
from tests.data.coco_files import photograph
from tests.data.released_rows import (
    llava_row,
    message,
    preference_row,
    vlfeedback_row,
    write_rows,
)

ROWS = 6
FILES = {"helpfulness": str, "hallucination": list, "harmlessness": str}  # of the caption
SHRUNK = [
    "model=dress_13b",
    "template=vicuna",
    "model.random_init=true",
    # of the same family, by the same path through timm, with as many patches
    "model.vision.name=null",
    "model.vision.pretrained=null",
    "+model.vision.config={timm_model_name: eva02_tiny_patch14_224, timm_pool: token}",
    "model.language.config.vocab_size=400",
    "model.language.config.hidden_size=40",
    "model.language.config.num_hidden_layers=2",
    "model.language.config.num_attention_heads=4",
    "model.language.config.intermediate_size=108",
    "model.language.dtype=float32",
    "model.language.lora.r=4",
    "model.tokenizer={name: null, vocab_size: 400}",
]


def write_lvlm_nlf(root: Path) -> None:
    """Write the three released files: ratings as text, a key with a blank, two types of caption."""
    (root / "train2017").mkdir(parents=True)
    (root / "LVLM_NLF").mkdir()
    for number in range(ROWS):
        (root / f"train2017/{number:012d}.jpg").write_bytes(photograph(number))
    for place, (name, kind) in enumerate(FILES.items()):
        rows = [json.dumps(lvlm_nlf_row(n, kind=kind, place=place)) for n in range(ROWS)]
        (root / f"LVLM_NLF/{name}_nlf.jsonl").write_text("\n".join(rows))


def lvlm_nlf_row(number: int, *, kind: type, place: int) -> dict[str, Any]:
    turns = [
        {"user": f"What is thing {number}?", "model": "A dog.", "rating": str(1 + place)},
        {"user": "Look again at its shape.", "model": "A box.", "rating": "4"},
    ]
    interaction = [turn | {"critique NLF": f"Rated {turn['rating']}."} for turn in turns]
    caption = f"Thing {number} is a box."
    return {
        "image_id": f"{number:012d}.jpg",
        "caption": [caption] if kind is list else caption,
        "interaction": interaction,
    }


def run(tmp_path: Path, *overrides: str) -> Artifact:
    """Run a job with its parents, whose steps the data sets."""
    typed = [
        *SHRUNK,
        "data=lvlm_nlf",
        f"data.root={tmp_path / 'data'}",
        "data.files=[LVLM_NLF/*_nlf.jsonl]",
        "data.images=train2017",
        "data.steps={stage0: 2, stage1: 2, stage2: 2, stage3: 2}",
        "data.groups_per_step={stage0: 2, stage1: 2, stage2: 2, stage3: 2}",
        "logger=local",
        "callbacks=none",
        f"paths.artifacts={tmp_path / 'artifacts'}",
        *overrides,
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Job(cfg=compose("run", typed), overrides=typed).run()


@pytest.mark.slow
def test_all_stages_and_the_joint_one_train(tmp_path: Path) -> None:
    write_lvlm_nlf(tmp_path / "data")
    last = {name: run(tmp_path, f"experiment={name}") for name in ("dress_stage3", "dress_joint")}
    models = {
        path.name.rpartition("-")[0]: Artifact.open(path)
        for path in (tmp_path / "artifacts").glob("dress_*")
        if (path / "weights").is_dir()
    }
    assert set(models) == {*(f"dress_stage{n}" for n in range(4)), "dress_joint"}
    for artifact in models.values():
        history = [json.loads(line) for line in (artifact.path / "metrics.jsonl").open()]
        assert max(record["step"] for record in history) == 2
        assert artifact.metrics["val/loss"] > 0
    assert last["dress_stage3"].lineage["parents"]["init"]["name"] == models["dress_stage2"].name
    assert last["dress_joint"].lineage["parents"]["init"]["name"] == models["dress_stage1"].name


TEXT_ONLY = {"id": "t", "conversations": [message("human", "Hello."), message("gpt", "Hello!")]}


@pytest.mark.parametrize(
    ("data", "stage"),
    [
        ("llava_instruct", "dress_stage0"),
        ("llava_instruct", "dress_stage1"),
        ("llava_preference", "dress_stage1"),
        ("vlfeedback", "dress_stage2"),
    ],
)
def test_other_released_formats_train(tmp_path: Path, data: str, stage: str) -> None:
    row, name, images = {
        "llava_instruct": (llava_row, "llava_instruct_150k.json", "train2017"),
        "llava_preference": (preference_row, "llava_7b_v1_preference.json", "train2017"),
        "vlfeedback": (vlfeedback_row, "vlfeedback_80k.jsonl", "merged_images"),
    }[data]
    rows = [row(number) for number in range(ROWS)]
    if stage == "dress_stage0":
        said = [message("human", "<image>\nDescribe it."), message("gpt", "A thing.")]
        rows = [llava_row(number, conversations=said) for number in range(ROWS)]
    elif data == "llava_instruct":  # among those that validate too
        rows += [TEXT_ONLY | {"id": str(number)} for number in range(20)]
    write_rows(tmp_path / "data", rows, name=name, images=images)
    artifact = run_job(
        tmp_path, f"experiment={stage}", f"data={data}", *SHRUNK, "model.tokenizer.vocab_size=400"
    )
    assert artifact.metrics["val/loss"] > 0
