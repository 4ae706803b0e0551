"""How the threads of a job wait for each other, as OpenMP itself shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

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
    """OpenMP itself shows what it took, when torch's copy of it is loaded, which torch does first.

    Had anything loaded torch before, it would have shown what it took then.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    (openmp,) = (Path(torch.__file__).parent / "lib").glob("libgomp*")
    command = "from dress.jobs.start import wait_briefly; wait_briefly()"
    command += f"; import ctypes; ctypes.CDLL({str(openmp)!r})"
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
