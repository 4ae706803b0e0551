"""A rank that keeps a share of the weights is killed with -9, again and again."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from test_devices import SHARDED, end, ranks_of, start, wait_for_steps

from dress.artifact import Artifact


@pytest.mark.slow
def test_shares_of_which_one_is_killed_ten_times_make_the_same_bytes(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = [*SHARDED, "data.steps.stage0=40"]
    code, _, errors = end(start(*command, f"paths.artifacts={whole}"))
    assert (code, errors) == (0, "")
    rng = random.Random(0)
    for number in range(10):
        process = start(*command, f"paths.artifacts={killed}")
        wait_for_steps(killed, 1 + 3 * number, process)
        time.sleep(rng.uniform(0, 0.3))
        os.kill(rng.choice(ranks_of(process)), signal.SIGKILL)
        code, _, errors = end(process)
        assert code == 1 and "the same command goes on" in errors, errors
    code, _, errors = end(start(*command, f"paths.artifacts={killed}"))
    assert (code, errors) == (0, "")
    (one,), (other,) = (list(folder.glob("dress_stage0-*")) for folder in (whole, killed))
    assert one.name == other.name
    for file in (one / "weights").rglob("*.safetensors"):
        assert file.read_bytes() == (other / file.relative_to(one)).read_bytes()
    assert Artifact.open(one).metrics == Artifact.open(other).metrics
