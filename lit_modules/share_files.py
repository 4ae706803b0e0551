"""Training states of a model that rests in shares: each rank writes its own, and reads its own.

A state is one file. Where weights rest in shares, it holds names in their place, and a folder
beside it the tensors: a safetensors file of each rank, by torch.distributed.checkpoint. So no
process ever holds them whole, and any number of processes reads them, with or without shares.
torch.distributed.checkpoint has a format of its own, which keeps its table of contents as a pickle.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
import torch.distributed.checkpoint as dcp
from lightning_utilities import apply_to_collection
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, empty

from dress.distributed import from_first, place
from dress.files import naming

SHARES = "shares"  # of a state: its folder, and how many ranks wrote there


def save_shares(state: Mapping[str, Any], *, path: Path) -> dict[str, Any]:
    """Write all DTensors of a state to a new folder beside `path`, from all ranks, each once.

    Return the state with names in their places. Where one rank cannot write, each raises its error.
    """
    names: dict[int, str] = {}
    tensors: dict[str, DTensor] = {}

    def named(tensor: DTensor) -> str:
        name = names.setdefault(id(tensor), f"share {len(names)}")
        tensors[name] = tensor
        return name

    small = apply_to_collection(dict(state), DTensor, named)
    folder = path.with_name(f"{path.name}-{from_first(uuid4().hex[:12])}")
    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with naming(folder):
        try:
            dcp.save(tensors, storage_writer=writer)
        except CheckpointException as error:  # which every rank raises, and is no Exception
            if place()[0] == 0:
                shutil.rmtree(folder, ignore_errors=True)
            raise next(cause for cause, _ in error.failures.values()) from error
    return {**small, SHARES: {"folder": folder.name, "ranks": place()[1]}}


def with_shares(
    state: Mapping[str, Any], *, path: Path, mesh: DeviceMesh | None = None
) -> dict[str, Any]:
    """Put the tensors back into the state that was read from `path`.

    They are whole, or with a mesh in shares, of which each rank reads its own; then all ranks call
    it. A state without shares is returned as it is. ValueError where a rank's file is missing.
    """
    if SHARES not in state:
        return dict(state)
    reader = shares_reader(state, path=path)
    found: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    tensors: dict[str, Any] = {
        name: _space(saved.size, dtype=saved.properties.dtype, mesh=mesh)
        for name, saved in found.items()
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.load(tensors, storage_reader=reader, no_dist=mesh is None)
    small = {key: value for key, value in state.items() if key != SHARES}
    return apply_to_collection(small, str, lambda text: tensors.get(text, text))


def _space(size: torch.Size, *, dtype: torch.dtype, mesh: DeviceMesh | None) -> Tensor:
    if mesh is None:
        return torch.empty(size, dtype=dtype)
    return empty(*size, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])


def shares_reader(state: Mapping[str, Any], *, path: Path) -> dcp.HuggingFaceStorageReader:
    """Open the folder of a state's shares; ValueError where the file of a rank is missing."""
    folder = path.parent / Path(state[SHARES]["folder"]).name
    found, ranks = len(list(folder.glob("*.safetensors"))), state[SHARES]["ranks"]
    if found != ranks:
        raise ValueError(f"{folder} has files of {found} ranks, not of {ranks}")
    return dcp.HuggingFaceStorageReader(str(folder))


def remove_other_shares(state: Mapping[str, Any], *, path: Path) -> None:
    """Remove the folders beside `path` that its state does not name."""
    kept = state[SHARES]["folder"] if SHARES in state else None
    for folder in path.parent.glob(f"{path.name}-*"):
        if folder.name != kept:
            shutil.rmtree(folder, ignore_errors=True)
