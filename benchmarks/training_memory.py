"""Compare the memory that job=plan computes with what training takes, on a CPU.

    python benchmarks/training_memory.py                   six settings, each in its own process
    python benchmarks/training_memory.py full 256 4        what trains, tokens of a row, rows
    python benchmarks/training_memory.py full 256 4 shallow      of 8 layers and 4,096 words
    python benchmarks/training_memory.py checkpointing     with and without, in turn

The language model has the shape of SmolLM2 135M and random weights; the optimizer is AdamW. With
and without checkpointing it has 8 layers and 4,096 words, so that activations are most of it. Peaks
are of anonymous memory (RssAnon, sampled each millisecond), without what the libraries take before.
What rests, a pass over rows and the step after it are in them, blocks that were freed are not.
"""

from __future__ import annotations

import ctypes
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from released_memory import Peak, anonymous

from dress.jobs.planned import shaped
from dress.modeling.build import build_model
from dress.modeling.devices import configure
from dress.modeling.footprint import (
    LiveBytes,
    at_rest,
    batch_of_rows,
    bytes_of,
    gradients_of,
    make_gradients,
    shapes_of,
    training_pass,
)
from dress.modeling.lvlm import LVLM
from dress.modeling.tokenizer import train_tokenizer
from dress.modeling.trainable import set_trainable
from dress.objectives.functional import target_log_probs
from lit_modules.parameters import parameter_groups

CONF = Path(__file__).resolve().parents[1] / "conf"
TRAINED = {"full": ["projector", "language"], "lora": ["projector", "lora"]}
SETTINGS = (
    *(("full", 128, 1), ("full", 256, 4), ("full", 512, 1)),
    *(("lora", 128, 4), ("lora", 256, 1), ("lora", 512, 4)),
)
LIBC, MMAP_THRESHOLD = ctypes.CDLL(None), -3
GB = 1e9
TURNS = 2
SHALLOW = {"num_hidden_layers": 8, "vocab_size": 4096}


def specification(trained: str, shape: Mapping[str, int]) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("run", ["model=world_smollm2", "template=chatml"])
    spec: Any = OmegaConf.to_container(cfg.model, resolve=True)
    found = shaped(spec, ())
    del found["language"]["quantization"]
    if trained == "full":
        found["language"]["lora"] = None
    found["language"]["config"] |= shape
    return found


def optimizer_of(model: LVLM) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameter_groups(model), lr=1e-4, fused=True)


def go(model: LVLM, *, rows: int, length: int) -> None:
    (log_probs,) = model(batch_of_rows(model, rows=rows, length=length), target_log_probs)
    (-log_probs.sum()).backward()


def built(trained: str, shape: Mapping[str, int]) -> LVLM:
    spec = specification(trained, shape)
    model = build_model(spec, tokenizer=train_tokenizer([""], vocab_size=300))
    set_trainable(model, TRAINED[trained])
    return model.train()


def planned(trained: str, shape: Mapping[str, int], *, length: int, rows: int) -> int:
    model = shapes_of(specification(trained, shape), fused=False)
    set_trainable(model, TRAINED[trained])
    model.train()
    make_gradients([model])
    gradients = gradients_of([model])
    optimizer = optimizer_of(model)
    with LiveBytes([*at_rest(model), *gradients]) as live:
        optimizer.step()
    loss = lambda batch: model(batch, target_log_probs)[0].sum()  # noqa: E731
    found = training_pass([model], loss, rows=rows, length=length, precision="32-true")
    return bytes_of([*at_rest(model), *gradients]) + live.now + found.peak


def started(trained: str, shape: Mapping[str, int]) -> tuple[LVLM, torch.optim.Optimizer]:
    """Return a model with gradients and an optimizer with its state."""
    model = built(trained, shape)
    optimizer = optimizer_of(model)
    go(model, rows=1, length=32)
    optimizer.step()
    return model, optimizer


def measure(trained: str, shape: Mapping[str, int], *, length: int, rows: int) -> None:
    started(trained, SHALLOW | {"num_hidden_layers": 2})  # the libraries have their own memory then
    LIBC.malloc_trim(0)
    before = anonymous()
    model, optimizer = started(trained, shape)
    LIBC.malloc_trim(0)
    with Peak() as peak:
        go(model, rows=rows, length=length)
        optimizer.step()
    taken = peak.bytes - before
    computed = planned(trained, shape, length=length, rows=rows)
    print(
        f"{trained} {length} tokens {rows} rows: planned {computed / GB:.3f} GB, "
        f"measured {taken / GB:.3f} GB, ratio {computed / taken:.3f}",
        flush=True,
    )


def checkpointing() -> None:
    length, rows = 512, 1
    for trained in TRAINED:
        model = built(trained, SHALLOW)
        go(model, rows=1, length=32)
        peaks: dict[bool, list[float]] = {False: [], True: []}
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(2 * TURNS):
            again = bool(turn % 2)
            model.checkpointing = again
            LIBC.malloc_trim(0)  # what the pass before has freed is no memory of this one
            before, started = anonymous(), time.process_time()
            with Peak() as peak:
                go(model, rows=rows, length=length)
            seconds[again].append(time.process_time() - started)
            peaks[again].append((peak.bytes - before) / GB)
        for again in (False, True):
            print(
                f"{trained} {length} tokens {rows} rows, checkpointing {again}: "
                f"{max(peaks[again]):.3f} GB, {statistics.median(seconds[again]):.1f} s",
                flush=True,
            )


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    LIBC.mallopt(MMAP_THRESHOLD, 2**16)  # larger blocks go back when they are freed
    configure(matmul_precision="highest", accelerator="cpu")
    if arguments == ["checkpointing"]:
        checkpointing()
    elif arguments:
        trained, length, rows, *shallow = arguments
        measure(trained, SHALLOW if shallow else {}, length=int(length), rows=int(rows))
    else:
        for setting in SETTINGS:
            subprocess.run([sys.executable, __file__, *map(str, setting)], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
