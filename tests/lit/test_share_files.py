"""A training state in shares: no file holds it whole, and what is not whole is refused."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_FSIZE, setrlimit
from typing import Any

import pytest
import torch
from lightning_utilities import apply_to_collection
from safetensors import safe_open
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from dress.errors import InputError
from dress.jobs.processes import join
from lit_modules.callbacks.train_state import TrainState
from lit_modules.share_files import SHARES, remove_other_shares, save_shares, with_shares
from tests.lit.test_sharded import on_ranks, weights
from tests.processes import run_ranks


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a state after two steps of AdamW by two processes with shares.

    The model's embedding is its head, too.
    """
    return on_ranks(tmp_path_factory.mktemp("shares"), "fsdp", "tied", until=2) / "tied"


def read(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "last.ckpt", weights_only=True)
    return state


def elements(file: Path) -> int:
    with safe_open(file, framework="pt") as opened:
        return sum(opened.get_tensor(name).numel() for name in opened.keys())


def test_each_process_writes_its_half(saved: Path) -> None:
    counts = [elements(file) for file in saved.glob("last.ckpt-*/*.safetensors")]
    whole = sum(tensor.numel() for tensor in weights(saved).values())
    assert sum(counts) == 3 * whole  # weights and the two averages of AdamW
    assert len(counts) == 2 and max(counts) < 0.55 * sum(counts)
    tensors: list[Tensor] = []
    apply_to_collection(read(saved), Tensor, tensors.append)
    kept = [tensor for tensor in tensors if tensor.is_floating_point()]  # counts of steps
    assert sum(tensor.numel() for tensor in kept) < 0.01 * whole


def test_one_process_reads_it_whole(saved: Path) -> None:
    state = with_shares(read(saved), path=saved / "last.ckpt")
    found = {name.removeprefix("model."): value for name, value in state["state_dict"].items()}
    for name, value in weights(saved).items():
        assert torch.equal(found[name.replace("/", ".", 1)], value), name
    assert SHARES not in state


def first_file(folder: Path) -> Path:
    return min(folder.glob("last.ckpt-*/*.safetensors"))


def test_what_is_not_whole_is_refused(saved: Path, tmp_path: Path) -> None:
    damages: dict[str, Callable[[Path], object]] = {
        "lost": lambda folder: first_file(folder).unlink(),
        "cut": lambda folder: first_file(folder).write_bytes(first_file(folder).read_bytes()[:-8]),
        "gone": lambda folder: shutil.rmtree(first_file(folder).parent),
    }
    for name, damage in damages.items():
        copy = shutil.copytree(saved, tmp_path / name)
        state = TrainState(scratch=copy, every_n_steps=1)
        state.check()
        damage(copy)
        with pytest.raises(InputError, match=r"last\.ckpt is damaged"):
            state.check()


def test_other_folders_are_removed(saved: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(saved, tmp_path / "copy")
    kept = first_file(copy).parent
    (copy / "last.ckpt-of-a-killed-run").mkdir()
    remove_other_shares(read(copy), path=copy / "last.ckpt")
    assert list(copy.glob("last.ckpt-*")) == [kept]
    remove_other_shares({}, path=copy / "last.ckpt")  # a state that is whole came after it
    assert not list(copy.glob("last.ckpt-*"))


def test_a_full_disk_is_an_error_of_every_process(tmp_path: Path) -> None:
    run_ranks(Path(__file__), [str(tmp_path)], world=2)
    assert not list(tmp_path.glob("last.ckpt*"))


def one_rank(folder: Path) -> None:
    join(f"file://{folder / 'meeting'}")
    weight = torch.ones(4096, 16)
    mesh = init_device_mesh("cpu", (2,))
    state = {"weight": distribute_tensor(weight, mesh, [Shard(0)])}
    setrlimit(RLIMIT_FSIZE, (1024, RLIM_INFINITY))  # larger files fail as on a full disk
    with pytest.raises(OSError, match=r"last\.ckpt-"):
        save_shares(state, path=folder / "last.ckpt")
    setrlimit(RLIMIT_FSIZE, (RLIM_INFINITY, RLIM_INFINITY))


if __name__ == "__main__":
    one_rank(Path(sys.argv[1]))
