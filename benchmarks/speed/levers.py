"""What bf16 products, bf16 and torch.compile would change in one of our steps here, alternating.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/speed/levers.py sft_k4_64

bf16 products are `matmul_precision=medium`. Autocast to bfloat16 covers the whole forward
pass but attention, which stays in float32 (block_attention.py); compiled are the MLPs of the
language model, the largest part without hooks.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from cases import CASES
from profile_step import Step

ROUNDS, WARM_UP = 12, 4


def run(step: Step, context: Callable[[], contextlib.AbstractContextManager[None]]) -> float:
    began = time.process_time()
    with context():
        step.forward()
    step.backward()
    step.update()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("case", choices=CASES)
    given = parser.parse_args()
    torch.set_float32_matmul_precision("highest")
    plain, compiled = (Step(CASES[given.case]) for _ in range(2))
    for module in compiled.model.language.modules():
        if type(module).__name__.endswith("MLP"):
            module.compile(dynamic=True)
    arms: dict[str, tuple[Step, str, Callable[[], contextlib.AbstractContextManager[None]]]] = {
        "float32": (plain, "highest", contextlib.nullcontext),
        "bf16 products": (plain, "medium", contextlib.nullcontext),
        "bfloat16": (plain, "highest", partial(torch.autocast, "cpu", dtype=torch.bfloat16)),
        "compiled": (compiled, "highest", contextlib.nullcontext),
    }
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(ROUNDS):
        for name, (step, precision, context) in arms.items():
            torch.set_float32_matmul_precision(precision)
            step.encode()
            step.collate()
            times[name].append(run(step, context))
    took = {name: median(values[WARM_UP:]) for name, values in times.items()}
    for name, seconds in took.items():
        ratio = took["float32"] / seconds
        print(
            f"{given.case} {name}: {1000 * seconds:.0f} CPU ms a step, {ratio:.2f} times the speed"
        )


if __name__ == "__main__":
    main()
