"""A job that trains on its own data and on more of it, by weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from dress.artifact import Artifact
from dress.errors import InputError
from dress.jobs.checks import check
from dress.jobs.job import Job
from dress.jobs.train import fingerprinted
from lit_modules.alignment import AlignmentModule

CONF = Path(__file__).resolve().parents[2] / "conf"
SMALL = [
    "logger=local",
    "callbacks=none",
    "data.sizes={captions: 40, instructions: 40}",
    "data.validation_share=0.2",
    "data.groups_per_step.stage0=8",
    "data.steps.stage0=6",
    "model.language.config.num_hidden_layers=1",
    "model.vision.config.layers=1",
]


@pytest.fixture(autouse=True)
def configurations() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield
    torch.set_num_threads(threads)


def job(folder: Path, *overrides: str) -> Job:
    typed = [*overrides, *SMALL, f"paths.artifacts={folder}"]
    return Job(cfg=compose("run", typed), overrides=typed)


def mixed(artifact: object, weight: object = 3.0) -> str:
    return f"+datamodule.mixture.more={{artifact: '{artifact}', weight: {weight}}}"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The groups of every step that is made, in order."""
    seen: list[str] = []
    original = AlignmentModule.training_step

    def training_step(self: AlignmentModule, batch: Any, batch_idx: int) -> None:
        seen.extend(name for part in batch for name in part.group_ids)
        original(self, batch, batch_idx)

    monkeypatch.setattr(AlignmentModule, "training_step", training_step)
    return seen


def test_steps_hold_groups_of_both_by_weight(tmp_path: Path, trained: list[str]) -> None:
    more = job(tmp_path, "experiment=dress_instructions").run()
    model = job(tmp_path, "experiment=dress_stage0", mixed(more.path)).run()
    kinds = Counter(name.rsplit("-", 1)[0] for name in trained)
    assert len(trained) == 48 and len(kinds) == 2
    assert 36 - 12 <= max(kinds.values()) <= 36 + 8  # 3 of 4, within a block in random order
    assert model.lineage["parents"]["mixture_more"]["fingerprint"] == more.fingerprint
    assert model.config["datamodule"]["mixture"] == {"more": 3.0}
    moved = more.path.rename(tmp_path / "elsewhere")
    again = job(tmp_path, "experiment=dress_stage0", mixed(moved)).run()
    assert again.path == model.path and len(trained) == 48
    nothing = fingerprinted(job(tmp_path, "experiment=dress_stage0", mixed(moved, 0.0)))
    assert nothing == fingerprinted(job(tmp_path, "experiment=dress_stage0"))
    other = job(tmp_path, "experiment=dress_stage0", mixed(moved, 1.0))
    assert isinstance(other.run(), Artifact) and len(trained) == 96


@pytest.mark.slow
def test_records_of_another_kind_bring_an_encoder_and_their_experiment(
    tmp_path: Path, trained: list[str]
) -> None:
    """Captions, which have no feedback, beside responses with it; found as a parent is."""
    overrides = [
        "experiment=dress_stage2",
        "init_from=random",
        "compare=[]",
        "data.steps={stage0: 2, stage1: 2, stage2: 4}",
        "data.sizes.prompts=40",
        "data.replay.stage1=0",
    ]
    replayed = "data.replay.stage2=1.0"
    feedback = job(tmp_path, "experiment=dress_feedback", *overrides[3:5]).run()
    trained.clear()  # of the stages before
    model = job(tmp_path, *overrides, f"datamodule.shards={feedback.path}", replayed).run()
    parts = {name.split("-")[1] for name in trained}
    assert parts == {"prompts", "captions"}
    assert model.lineage["parents"]["mixture_replay"]["name"].startswith("dress_captions-")
    recorded = model.config["datamodule"]["mixture"]["replay"]
    assert recorded["weight"] == 1.0 and "InstructionEncoder" in recorded["encoder"]["_target_"]
    overrides += [f"datamodule.shards={feedback.path}", replayed]
    with pytest.raises(InputError, match="no feedback"):
        job(tmp_path, *overrides, "~datamodule.mixture.replay.encoder").run()


def test_without_a_mixture_its_settings_count_nothing(tmp_path: Path) -> None:
    plain = fingerprinted(job(tmp_path, "experiment=dress_stage0"))
    weighted = fingerprinted(job(tmp_path, "experiment=dress_stage0", "datamodule.weight=2"))
    assert plain == weighted and "weight" not in plain["datamodule"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (mixed("x", -1), "datamodule.mixture.more.weight is -1: give a number, 0 or more"),
        (mixed("x", "many"), "datamodule.mixture.more.weight is 'many'"),
        ("+datamodule.mixture.more=x", "give artifact=<directory or URL> and weight=<number>"),
        ("+datamodule.mixture.more={artifact: x}", "give artifact=<directory or URL> and weight="),
        ("datamodule.weight=-1", "datamodule.weight is -1"),
        ("datamodule.when_dry=panic", "choose repeat or stop or reweight"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(job(tmp_path, "experiment=dress_stage0", override).cfg)


def test_a_missing_artifact_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        job(tmp_path, "experiment=dress_stage0", mixed("nowhere")).run()
