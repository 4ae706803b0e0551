"""How the threads of a job wait for each other, as OpenMP itself shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from dress.jobs.start import SPINS

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, f"GOMP_SPINCOUNT = '{SPINS}'"),
        ({"GOMP_SPINCOUNT": "77"}, "GOMP_SPINCOUNT = '77'"),
        ({"OMP_WAIT_POLICY": "active"}, "OMP_WAIT_POLICY = 'ACTIVE'"),
    ],
)
def test_threads_wait_as_they_are_told(given: Mapping[str, str], shown: str) -> None:
    """OpenMP itself shows what it took, so it was told before torch loaded it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    command = "from dress.jobs.start import wait_briefly; wait_briefly(); import torch"
    found = subprocess.run(
        [sys.executable, "-c", command],
        cwd=ROOT,
        env=environment | {"OMP_DISPLAY_ENV": "verbose"} | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown in found.stderr
    assert given or "OMP_WAIT_POLICY = 'ACTIVE'" not in found.stderr
