"""Processes that srun began, told to torch as torchrun tells its own."""

from __future__ import annotations

import os

from dress.errors import InputError


def announce_ranks() -> None:
    """Set the variables that torch reads where this is one of several tasks of a step of SLURM."""
    if "WORLD_SIZE" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return
    from lightning.fabric.plugins.environments import SLURMEnvironment  # which takes seconds

    try:
        slurm = SLURMEnvironment()
    except RuntimeError as error:  # variables that contradict each other
        raise InputError(f"SLURM's step cannot be joined: {error}") from error
    found = {
        "WORLD_SIZE": slurm.world_size(),
        "RANK": slurm.global_rank(),
        "LOCAL_RANK": slurm.local_rank(),
        "GROUP_RANK": slurm.node_rank(),
        "MASTER_ADDR": slurm.main_address,
        "MASTER_PORT": slurm.main_port,
    }
    os.environ |= {name: str(value) for name, value in found.items()}
