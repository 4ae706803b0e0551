"""Measure the memory of each rank that trains a model of SmolLM2's shape whole, with AdamW.

    torchrun --nproc-per-node=2 benchmarks/sharded_memory.py [WIDTH]

trains on four sequences of 256 tokens a step, all ranks together, with trainer.strategy=fsdp, or on
one process without it. WIDTH is the hidden size, 576 unless given; matrices and vocabulary follow.
Peaks are of anonymous memory (RssAnon, sampled each millisecond), without what the libraries take
before. Products are rounded, which saves time.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from omegaconf import OmegaConf
from released_memory import Peak, anonymous

from dress.data.collate import TreeCollator
from dress.distributed import from_first, gather, place
from dress.jobs.processes import join
from dress.modeling.build import build_hollow, build_model
from dress.modeling.checkpoint import save_weights
from dress.modeling.lvlm import LVLM
from dress.modeling.sharding import shard
from dress.modeling.tokenizer import train_tokenizer
from dress.modeling.trainable import set_trainable
from dress.objectives.conditional_lm import ConditionalLM
from dress.types import Encoded, EncodedGroup, TokenBatch
from lit_modules.alignment import AlignmentModule
from lit_modules.sharded import ShardedStrategy

CONF = Path(__file__).resolve().parents[1] / "conf" / "model"
SEQUENCES, LENGTH, STEPS = 4, 256, 2


def model_of(rank: int) -> LVLM:
    language: Any = OmegaConf.to_container(OmegaConf.load(CONF / "language" / "smollm2.yaml"))
    vision: Any = OmegaConf.to_container(OmegaConf.load(CONF / "vision" / "tiny.yaml"))
    width = int(sys.argv[1]) if len(sys.argv) > 1 else language["config"]["hidden_size"]
    for key in ("intermediate_size", "vocab_size", "hidden_size"):
        language["config"][key] = language["config"][key] * width // 576
    spec = {
        "vision": vision,
        "projector": {"kind": "linear"},
        "language": language | {"name": None, "random_init": True, "lora": None},
    }
    tokenizer = train_tokenizer(["a red circle"], vocab_size=300)
    model = (build_hollow if rank else build_model)(spec, tokenizer=tokenizer)
    report = set_trainable(model, ["projector", "language"])
    if rank == 0:
        print(report)
    return model


def step(model: LVLM, *, rank: int, world: int) -> tuple[TokenBatch, ...]:
    ids = np.random.default_rng(0).integers(10, 2000, (SEQUENCES, LENGTH))
    supervised = np.arange(LENGTH) > 0
    groups = [
        EncodedGroup(str(n), (Encoded(row, supervised, ()),), {}) for n, row in enumerate(ids)
    ]
    collate = TreeCollator(
        pad_token_id=0, image_token_id=model.image_token_id, num_image_tokens=1, one_row=True
    )
    return collate(groups[rank::world])


def main() -> None:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("medium")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        join("env://")
    rank, world = place()
    torch.manual_seed(0)
    own = anonymous()
    peaks = {}
    with Peak() as peak:
        model = model_of(rank)
        if world > 1:
            shard(model, torch.device("cpu"))
    peaks["built"] = peak.bytes - own
    batch = step(model, rank=rank, world=world)
    module = AlignmentModule(
        model=model,
        objective=ConditionalLM(),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-4, fused=True),
    )
    several = {"plugins": [TorchElasticEnvironment()], "strategy": ShardedStrategy()}
    trainer = L.Trainer(
        accelerator="cpu",
        devices=world,
        max_steps=STEPS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **(several if world > 1 else {}),  # type: ignore[arg-type]
    )
    with Peak() as peak:
        trainer.fit(module, torch.utils.data.DataLoader([batch] * STEPS, batch_size=None))
    peaks["trained"] = peak.bytes - own
    with tempfile.TemporaryDirectory() as name:
        folder = Path(from_first(name) if world > 1 else name)
        with Peak() as peak:
            trainer.save_checkpoint(folder / "last.ckpt")
        peaks["state saved"] = peak.bytes - own
        with Peak() as peak:
            save_weights(model, folder, base={})
        peaks["weights saved"] = peak.bytes - own
    for number, found in enumerate(gather(peaks)):
        if rank == 0:
            print(number, {name: round(value / 1e6) for name, value in found.items()}, "MB")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
