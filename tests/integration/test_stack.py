"""How far it is from the command to the loss."""

from __future__ import annotations

import runpy
import sys
import traceback
from pathlib import Path

import pytest

from dress.objectives.conditional_lm import ConditionalLM

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("run.py", "dress", "lit_modules", "datamodules")


class AtTheLoss(Exception):
    """Raised in place of a loss."""


def test_the_stack_at_the_loss_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: ConditionalLM, model: object, batch: object, /) -> None:
        raise AtTheLoss

    sizes = "data.sizes={captions: 40, instructions: 40, prompts: 40}"
    command = ["experiment=dress_stage0", "debug=smoke", "logger=local", "callbacks=none", sizes]
    monkeypatch.setattr(ConditionalLM, "__call__", stop)
    monkeypatch.setattr(sys, "argv", ["run.py", *command, f"paths.artifacts={tmp_path}"])
    with pytest.raises(AtTheLoss) as stopped:
        runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
    frames = traceback.extract_tb(stopped.tb)
    steps = [
        (Path(frame.filename).relative_to(ROOT).as_posix(), frame.name)
        for frame in frames
        if any(Path(frame.filename).is_relative_to(ROOT / place) for place in PLACES)
        and frame.name != "<module>"
    ]
    assert steps == [
        ("run.py", "main"),
        ("dress/jobs/train.py", "run"),
        ("dress/jobs/fit.py", "fit"),
        ("lit_modules/alignment.py", "training_step"),
        ("lit_modules/alignment.py", "update"),
        ("lit_modules/alignment.py", "loss"),
    ]  # and the objective
    assert frames[-1].name == "stop"
