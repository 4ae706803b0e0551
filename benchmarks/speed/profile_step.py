"""Where the time of one of our steps goes: torch profiler by operator, and the parts of a step.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/speed/profile_step.py sft_k4_64 --out DIR

Writes `<case>_trace.json` for a flame graph in Perfetto or chrome://tracing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from cases import CASES, Case, samples
from ours import build, collator_of, encoder_of, processor_of
from torch.profiler import ProfilerActivity, profile

from dress.objectives.conditional_lm import ConditionalLM
from dress.objectives.dpo import DPO

STEPS = 8


class Step:
    """The parts of a step, for a few steps' groups; called in a row they make one step."""

    def __init__(self, case: Case) -> None:
        self.case, self.number = case, 0
        self.model = build(case).train()
        self.samples = samples(case)
        processor = processor_of(self.model, image_tokens=case.image_tokens)
        self.encoder = encoder_of(case, processor)
        self.collator = collator_of(self.model, image_tokens=case.image_tokens)
        self.objective = DPO() if case.objective == "dpo" else ConditionalLM()
        self.objective.prepare(self.model)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, fused=True)

    def encode(self) -> None:
        begin = self.number * self.case.groups_per_step % self.case.groups
        self.number += 1
        chosen = self.samples[begin : begin + self.case.groups_per_step]
        self.groups = [self.encoder(sample, epoch=0) for sample in chosen]

    def collate(self) -> None:
        self.batches = self.collator(self.groups)

    def forward(self) -> None:
        self.outputs = [self.objective(self.model, batch) for batch in self.batches]

    def backward(self) -> None:
        for output in self.outputs:
            output.loss_sum.backward()

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def parts(self) -> dict[str, Callable[[], None]]:
        names = ("encode", "collate", "forward", "backward", "update")
        return {name: getattr(self, name) for name in names}


def timed(step: Step) -> dict[str, float]:
    """Median CPU milliseconds of each part."""
    spent: dict[str, list[float]] = {name: [] for name in step.parts()}
    for _ in range(2 * STEPS):
        for name, part in step.parts().items():
            began = time.process_time()
            part()
            spent[name].append(1000 * (time.process_time() - began))
    return {name: median(values[STEPS:]) for name, values in spent.items()}


def profiled(step: Step) -> Any:
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(STEPS):
            for part in step.parts().values():
                part()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--rows", type=int, default=25, help="of the table; 0: no profile")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_float32_matmul_precision("highest")
    step = Step(CASES[given.case])
    parts = timed(step)
    print("CPU ms:", {name: round(ms, 1) for name, ms in parts.items()}, "all", sum(parts.values()))
    if not given.rows:
        return
    found = profiled(step)
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=given.rows))
    if given.out:
        found.export_chrome_trace(str(given.out / f"{given.case}_trace.json"))


if __name__ == "__main__":
    main()
