"""One GPU, one command of at most ten minutes: kernels, speed, memory and sharding. Not run so far.

    python benchmarks/speed/gpu.py                       LLaVA-7B's shapes, on a GPU
    python benchmarks/speed/gpu.py --device cpu --tiny   the same code on a CPU, within a minute

Random weights; prompts of 40, critiques of 40-80, responses of 60-200 words, LoRA, AdamW, bf16.
`kernels`: a few layers by FlexAttention (flash-attn, where K = 1) and by the dense mask: seconds of
    a step, and how far loss and gradients differ.
`speed`: steps on token trees, and on padded rows as TRL makes them: each response with its whole
    prompt and image, eight rows a pass, right padding, sdpa. Both score supervised tokens alone and
    use the same adapter. MFU counts 4 N FLOPs a computed token (forward, gradient of inputs; LoRA
    has no gradient of frozen weights), over 989 TFLOP/s and over the product rate measured here.
`memory`: the peak of a step over what job=plan says of it.
`fsdp`: a step with the weights in shares, of which one device has the only one.
Each figure is a line of JSON. A part that fails leaves its error in its place, and the next begins.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from gpu_batches import collated, group, padded_loss, tree_loss
from hydra import compose, initialize_config_dir
from torch import Tensor

from dress.jobs.job import Job
from dress.jobs.plan import Planning, nodes_of
from dress.jobs.plan import figures as figures_of
from dress.jobs.planned import Devices, planned
from dress.modeling.build import build_model
from dress.modeling.footprint import batch_of_rows
from dress.modeling.lvlm import LVLM
from dress.modeling.sharding import shard
from dress.modeling.tokenizer import train_tokenizer
from dress.modeling.trainable import set_trainable

CONF = Path(__file__).resolve().parents[2] / "conf"
PEAK = 989e12  # dense bf16 FLOP/s of an H200 and an H100
PARTS = ("kernels", "speed", "memory", "fsdp")
MINUTES = 9  # after which nothing more is begun


@dataclass(frozen=True)
class Shapes:
    """What is run: `tokens` bounds those of a forward pass, `few` are the layers of `kernels`."""

    overrides: tuple[str, ...]
    responses: tuple[int, ...]  # to each of `groups` prompts
    groups: int
    tokens: int
    rows: tuple[int, ...]  # of which the memory is measured
    few: int
    product: int
    steps: int
    warm_up: int


LARGE = Shapes(
    overrides=("model=llava_7b", "template=vicuna"),
    responses=(1, 4, 8),
    groups=16,
    tokens=7168,
    rows=(1, 4),
    few=2,
    product=8192,
    steps=5,
    warm_up=2,
)
TINY = Shapes(
    overrides=(
        *("model=tiny", "model.max_length=64", "model.language.config.num_hidden_layers=2"),
        "model.vision.config.layers=1",
    ),
    responses=(1, 4),
    groups=2,
    tokens=2048,
    rows=(2,),
    few=1,
    product=256,
    steps=1,
    warm_up=0,
)


class Bench:
    """The shapes, the device, and what both are made into."""

    def __init__(self, shapes: Shapes, device: str) -> None:
        self.shapes, self.device = shapes, device
        trainer = "trainer=gpu plan.gpu=h200" if device == "cuda" else "trainer=cpu"
        self.overrides = [
            *("job=plan", "experiment=dress_stage2", "optimizer=adamw", *trainer.split()),
            *shapes.overrides,
        ]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            self.job = Job(cfg=compose("run", self.overrides), overrides=self.overrides)
        self.planning = Planning(**self.job.node("plan"))

    def model(self, *, layers: int | None = None) -> LVLM:
        spec = nodes_of(self.job, self.planning)["model"]
        spec["language"].pop("quantization", None)
        if layers is not None:
            spec["language"]["config"]["num_hidden_layers"] = layers
        tokenizer = train_tokenizer([" ".join(map(str, range(500)))], vocab_size=1000)
        with torch.device(self.device):
            model = build_model(spec, tokenizer=tokenizer)
        set_trainable(model, spec["trainable"])
        return model.train()

    def step_of(self, model: LVLM, loss: Callable[[Any], Tensor]) -> Callable[[Any], float]:
        """Return what makes a step of AdamW on the sum over micro-batches, and gives the loss."""
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=self.device == "cuda")

        def step(batches: Sequence[Any]) -> float:
            total = torch.zeros((), device=self.device)
            for batch in batches:
                with torch.autocast(self.device, dtype=torch.bfloat16):
                    part = loss(batch)
                part.backward()
                total += part.detach()
            optimizer.step()
            optimizer.zero_grad()
            return total.item()  # which waits for the device

        return step

    def seconds(self, run: Callable[[], Any]) -> float:
        times = []
        for number in range(self.shapes.warm_up + self.shapes.steps):
            began = time.perf_counter()
            run()
            if self.device == "cuda":
                torch.cuda.synchronize()
            if number >= self.shapes.warm_up:
                times.append(time.perf_counter() - began)
        return median(times)

    def product_rate(self) -> float:
        side = self.shapes.product
        a, b = (torch.randn(side, side, device=self.device).bfloat16() for _ in range(2))
        return 2 * side**3 / self.seconds(lambda: a @ b)


def kernels(bench: Bench, responses: int) -> dict[str, Any]:
    model = bench.model(layers=bench.shapes.few)
    groups = [group(model, n, responses=responses) for n in range(2)]
    batches = collated(model, groups, device=bench.device, tokens=bench.shapes.tokens)
    step, found = bench.step_of(model, partial(tree_loss, model)), {}
    trained = [p for p in model.parameters() if p.requires_grad]
    for name, model.gpu_kernels in (("kernels", True), ("dense", False)):
        with torch.autocast(bench.device, dtype=torch.bfloat16):
            loss = tree_loss(model, batches[0])
        gradients = torch.autograd.grad(loss, trained, allow_unused=True)
        flat = torch.cat([g.float().flatten() for g in gradients if g is not None])
        found[name] = loss.item(), flat
    (loss, gradient), (dense_loss, dense) = found["kernels"], found["dense"]
    figures = {
        "loss_error": abs(loss - dense_loss) / abs(dense_loss),
        "gradient_error": ((gradient - dense).norm() / dense.norm()).item(),
    }
    for name, model.gpu_kernels in (("kernels", True), ("dense", False)):
        figures[f"{name}_s"] = bench.seconds(lambda: step(batches))
    return figures


def speed(bench: Bench, model: LVLM, responses: int) -> dict[str, Any]:
    groups = [group(model, n, responses=responses) for n in range(bench.shapes.groups)]
    logical = sum(len(s.input_ids) for g in groups for s in g.sequences)
    weights = sum(p.numel() for n, p in model.language.named_parameters() if "embed" not in n)
    rate, figures = bench.product_rate(), {"responses": len(groups) * responses}
    for name, loss, tokens in (
        ("trees", tree_loss, bench.shapes.tokens),
        ("padded", padded_loss, None),
    ):
        batches = collated(model, groups, device=bench.device, tokens=tokens)
        computed = sum(batch.input_ids.numel() for batch in batches)
        step = bench.step_of(model, partial(loss, model))
        figures[f"{name}_loss"] = step(batches)
        took = bench.seconds(lambda step=step, batches=batches: step(batches))
        flops = 4 * weights * computed / took
        figures |= {
            f"{name}_s": took,
            f"{name}_tokens": computed,
            f"{name}_logical_tokens_per_s": logical / took,
            f"{name}_mfu_of_989": flops / PEAK,
            f"{name}_mfu_of_measured": flops / rate,
        }
    return figures | {"times_padded": figures["padded_s"] / figures["trees_s"]}


def memory(bench: Bench, model: LVLM, rows: int) -> dict[str, Any]:
    """Compare a step on `rows` rows of 1,024 tokens, or of all that the model takes."""
    length = min(1024, bench.job.cfg.model.max_length)
    bench.job.cfg.datamodule.rows_per_batch = rows
    nodes = nodes_of(bench.job, bench.planning)
    devices = Devices(bench.device, **figures_of(bench.planning, bench.job.cfg.trainer))
    found = planned(bench.job, nodes, devices=devices, lengths=[length])
    computed = sum(found["rest"].values()) + found["settings"][0]["activations"][str(rows)]
    batch = batch_of_rows(model, rows=rows, length=length).to(bench.device)
    step = bench.step_of(model, partial(tree_loss, model))
    step((batch,))
    if bench.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step((batch, batch))
    peak = torch.cuda.max_memory_allocated() if bench.device == "cuda" else None
    return {
        "length": length,
        "planned_gib": computed / 2**30,
        "peak_gib": peak and peak / 2**30,
        "planned_over_peak": peak and computed / peak,
    }


def fsdp(bench: Bench, model: LVLM, responses: int) -> dict[str, Any]:
    groups = [group(model, n, responses=responses) for n in range(2)]
    batches = collated(model, groups, device=bench.device, tokens=bench.shapes.tokens)
    with torch.no_grad(), torch.autocast(bench.device, dtype=torch.bfloat16):
        alone = sum(tree_loss(model, batch).item() for batch in batches)
    backend = "nccl" if bench.device == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        shard(model, torch.device(bench.device))
        step = bench.step_of(model, partial(tree_loss, model))
        return {
            "loss": step(batches),
            "loss_alone": alone,
            "step_s": bench.seconds(lambda: step(batches)),
        }
    finally:
        dist.destroy_process_group()


def work(bench: Bench, parts: Sequence[str]) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    """Yield what is measured: the part, its number of responses or rows, and what measures it."""
    for responses in bench.shapes.responses[:2] if "kernels" in parts else ():
        yield "kernels", responses, partial(kernels, bench, responses)
    if not {"speed", "memory", "fsdp"} & set(parts):
        return
    model = bench.model()
    for responses in bench.shapes.responses if "speed" in parts else ():
        yield "speed", responses, partial(speed, bench, model, responses)
    for rows in bench.shapes.rows if "memory" in parts else ():
        yield "memory", rows, partial(memory, bench, model, rows)
    if "fsdp" in parts:
        yield "fsdp", 1, partial(fsdp, bench, model, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", default=PARTS, help="all unless given")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="shapes for a CPU")
    given = parser.parse_args()
    bench, failed, began = Bench(TINY if given.tiny else LARGE, given.device), 0, time.monotonic()
    for part, number, measure in work(bench, given.parts):
        line: dict[str, Any] = {"part": part, "number": number}
        if time.monotonic() - began > 60 * MINUTES:
            line["left_out"] = f"{MINUTES} minutes are over"
        else:
            try:
                line |= measure()
            except Exception:
                line["error"], failed = traceback.format_exc(), failed + 1
        if given.device == "cuda":
            torch.cuda.empty_cache()
        print(json.dumps(line), flush=True)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
