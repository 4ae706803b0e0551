"""Compare the memory that job=plan computes with what training takes, on a CPU.

    python benchmarks/training_memory.py                 six settings, each in its own processes
    python benchmarks/training_memory.py lora dpo        some of them
    python benchmarks/training_memory.py checkpointing   peak and time of a pass, with and without

The language model has SmolLM2's width, 4 layers, 4,096 words and random weights; the optimizer is
AdamW, the precision float32. A training of two steps with two micro-batches each goes through the
objective, the module and the trainer that job=train uses. Peaks are of anonymous memory (RssAnon,
sampled each millisecond), without what the libraries take before. glibc is told to give back each
block of 64 KiB or more when it is freed, or it would keep what the plan does not count.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lightning as L
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from released_memory import Peak, anonymous

from dress.distributed import gather, place
from dress.jobs.job import Job
from dress.jobs.planned import shaped
from dress.jobs.processes import join
from dress.modeling.build import build_hollow, build_model
from dress.modeling.footprint import batch_of_rows
from dress.modeling.lvlm import LVLM
from dress.modeling.sharding import shard
from dress.modeling.tokenizer import train_tokenizer
from dress.modeling.trainable import set_trainable
from dress.objectives.functional import target_log_probs
from lit_modules.alignment import AlignmentModule
from lit_modules.sharded import ShardedStrategy

CONF = Path(__file__).resolve().parents[1] / "conf"
FULL = ("model.language.lora=null", "model.trainable.stage2=[projector,language]")
SETTINGS = {  # overrides, tokens of a row, rows
    "full": (FULL, 512, 2),
    "lora": ((), 256, 4),
    "checkpointed": ((*FULL, "module.activation_checkpointing=true"), 512, 2),
    "dpo": (("experiment=silkie_dpo",), 256, 4),
    "reward": (("experiment=llava_rlhf_rm", *FULL), 256, 4),
    "fsdp": ((*FULL, "trainer.devices=2", "trainer.strategy=fsdp"), 256, 2),
}
BLOCK, GB, STEPS, TURNS = "65536", 1e9, 2, 2


def job_of(name: str, *, layers: int = 4, kind: str = "train", folder: str = "unused") -> Job:
    given, length, rows = SETTINGS[name]
    chosen = () if name in ("dpo", "reward") else ("experiment=dress_stage2",)
    overrides = [
        *(*chosen, "model=world_smollm2", "template=chatml", "optimizer=adamw"),
        "model.language.random_init=true",
        f"model.language.config.num_hidden_layers={layers}",
        "model.language.config.vocab_size=4096",
        f"datamodule.rows_per_batch={rows}",
        *given,
        f"job={kind}",
        f"paths.artifacts={folder}",
    ]
    if kind == "plan":
        overrides.append(f"plan.lengths=[{length}]")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Job(cfg=compose("run", overrides), overrides=overrides)


def planned(name: str) -> int:
    """Return what job=plan says that each process takes."""
    rows = SETTINGS[name][2]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        artifact = job_of(name, kind="plan", folder=folder).run()
        found = json.loads((artifact.path / "plan.json").read_text())
    (setting,) = found["settings"]
    return sum(found["rest"].values()) + setting["activations"][str(rows)]


def model_of(job: Job) -> LVLM:
    rank, world = place()
    spec = shaped(job.node("model"), ())
    model = (build_hollow if rank else build_model)(
        spec, tokenizer=train_tokenizer([""], vocab_size=300)
    )
    set_trainable(model, spec["trainable"][job.cfg.stage])
    if world > 1:
        shard(model, torch.device("cpu"))
    return model.train()


def train(job: Job, *, length: int, rows: int) -> None:
    model, world = model_of(job), place()[1]
    objective = instantiate(job.cfg.objective)
    objective.prepare(model)
    module = AlignmentModule(
        model=model,
        objective=objective,
        optimizer=instantiate(job.cfg.optimizer),
        activation_checkpointing=job.cfg.module.activation_checkpointing,
    )
    batch = batch_of_rows(model, rows=rows, length=length)
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
    steps = [(batch, batch)] * STEPS  # the second micro-batch of a step finds gradients there
    trainer.fit(module, torch.utils.data.DataLoader(steps, batch_size=None))


def measure(name: str) -> None:
    """Print the peak of the process that takes most."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        join("env://")
    _, length, rows = SETTINGS[name]
    train(job_of(name, layers=2), length=length, rows=1 + (rows > 1))  # what libraries keep
    gc.collect()
    before = anonymous()
    with Peak() as peak:
        train(job_of(name), length=length, rows=rows)
    taken = max(gather(peak.bytes - before))
    if place()[0] == 0:
        print(json.dumps({"taken": taken}), flush=True)


def compared(name: str) -> None:
    _, length, rows = SETTINGS[name]
    ranks = ["-m", "torch.distributed.run", "--nproc-per-node=2"] if name == "fsdp" else []
    done = subprocess.run(
        [sys.executable, *ranks, __file__, "measure", name],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": BLOCK, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    taken = json.loads(done.stdout.splitlines()[-1])["taken"]
    computed = planned(name)
    print(
        f"{name} {length} tokens {rows} rows: planned {computed / GB:.3f} GB, "
        f"measured {taken / GB:.3f} GB, ratio {computed / taken:.3f}",
        flush=True,
    )


def checkpointing() -> None:
    length, rows = 512, 1
    for name in ("full", "lora"):
        model = model_of(job_of(name))
        batch = batch_of_rows(model, rows=rows, length=length)
        peaks: dict[bool, list[float]] = {False: [], True: []}
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(2 * TURNS + 2):
            again = bool(turn % 2)
            model.checkpointing = again
            before, started = anonymous(), time.process_time()
            with Peak() as peak:
                (-model(batch, target_log_probs)[0].sum()).backward()
            seconds[again].append(time.process_time() - started)
            peaks[again].append((peak.bytes - before) / GB)
        for again in (False, True):
            print(
                f"{name} {length} tokens {rows} rows, checkpointing {again}: "
                f"{max(peaks[again][1:]):.3f} GB, {statistics.median(seconds[again][1:]):.1f} s",
                flush=True,
            )


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    if arguments[:1] == ["measure"]:
        measure(arguments[1])
    elif arguments == ["checkpointing"]:
        checkpointing()
    else:
        for name in arguments or SETTINGS:
            compared(name)


if __name__ == "__main__":
    main(sys.argv[1:])
