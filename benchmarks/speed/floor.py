"""What a step computes, and what its matrix products alone would take: the floor.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/speed/floor.py --out docs/results/speed

Products are counted in the step itself; their rate is that of one plain float32 product, of the
step's tokens with an MLP's weight, timed before and after the step in the same process.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from statistics import median

import torch
from cases import CASES
from compare import machine
from profile_step import STEPS, Step, profiled, timed
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten
KINDS = {
    "products of linear layers": ("mm", "addmm", "mkldnn_convolution"),
    "products of attention": ("bmm", "baddbmm", "scaled_dot_product_flash_attention_for_cpu"),
    "softmax": ("softmax", "softmax_backward_data", "log_softmax", "log_softmax_backward_data"),
    "element by element": (
        *("mul", "add", "sub", "div", "neg", "pow", "rsqrt", "mean", "sum", "cos", "sin"),
        *("silu", "silu_backward", "gelu", "gelu_backward", "native_layer_norm"),
    ),
    "copies": ("copy", "cat", "index", "index_select", "index_add", "index_copy", "fill", "zero"),
    "optimizer and clipping": ("fused_adamw", "linalg_vector_norm", "foreach_norm", "foreach_mul"),
}
LINEAR = ("aten.mm", "aten.addmm", "aten.addmm_", "aten.convolution")
REST = "everything else, each of it small"
COUNTED_LIKE = {  # operators that torch does not count by themselves
    aten.addmm_: aten.addmm,
    aten._scaled_dot_product_flash_attention_for_cpu: aten._scaled_dot_product_flash_attention,
}
RUNS = 200


def kinds(step: Step) -> dict[str, float]:
    """CPU milliseconds of a step by kind of operator, under the profiler."""
    found = dict.fromkeys([*KINDS, REST], 0.0)
    of = {name: kind for kind, names in KINDS.items() for name in names}
    for row in profiled(step).key_averages():
        name = row.key.removeprefix("aten::").strip("_")
        found[of.get(name, REST)] += row.self_cpu_time_total / 1000 / STEPS
    return found


def counted(step: Step) -> tuple[float, float, float]:
    """Return the tokens of a step and its floating-point operations: linear layers, attention."""
    tokens, flops = 0, Counter[str]()
    for _ in range(STEPS):
        counter = FlopCounterMode(display=False)
        counter.flop_registry |= {new: counter.flop_registry[o] for new, o in COUNTED_LIKE.items()}
        with counter:
            for part in step.parts().values():
                part()
        tokens += sum(batch.input_ids.numel() for batch in step.batches)
        for name, number in counter.get_flop_counts()["Global"].items():
            linear = str(name) in LINEAR
            flops["linear" if linear else "attention"] += number
    return tokens / STEPS, flops["linear"] / STEPS, flops["attention"] / STEPS


def product_rate(tokens: int, width: int, inner: int) -> float:
    """Floating-point operations a second of CPU time."""
    x, weight = torch.randn(tokens, width), torch.randn(width, inner)
    took = []
    for _ in range(RUNS):
        began = time.process_time()
        x @ weight
        took.append(time.process_time() - began)
    return 2 * x.numel() * inner / median(took[RUNS // 4 :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="+", default=["sft_k4_64"], choices=CASES)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(1)
    found = {}
    for name in given.cases:
        case = CASES[name]
        step = Step(case)
        tokens, linear, attention = counted(step)
        shape = (round(tokens), case.language["hidden_size"], case.language["intermediate_size"])
        rates = [product_rate(*shape)]
        parts = timed(step)
        rates.append(product_rate(*shape))
        rate = sum(rates) / 2
        found[name] = {
            "title": case.title,
            "tokens": tokens,
            "parts_ms": parts,
            "kinds_ms": kinds(step),
            "linear_gflop": linear / 1e9,
            "attention_gflop": attention / 1e9,
            "gflop_per_s": [r / 1e9 for r in rates],
            "floor_ms": 1000 * (linear + attention) / rate,
        }
        print(json.dumps(found[name], indent=1), flush=True)
    if given.out:
        record = json.dumps(machine() | {"steps": found}, indent=1)
        (given.out / "floor.json").write_text(record + "\n")


if __name__ == "__main__":
    main()
