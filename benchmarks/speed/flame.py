"""A flame graph of one of our steps: torch profiler's operators inside modules inside parts.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/speed/flame.py sft_k4_64 docs/flame.svg

Time runs along the width, callers stand above what they call; the same calls of all steps are one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from cases import CASES
from matplotlib.figure import Figure
from profile_step import STEPS, Step
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

LEAST = 0.004  # share of the step below which a call is not drawn
WIDTH, ROW = 11.0, 0.28  # inches
COLOURS = {"aten": "#f4a582", "part": "#92c5de", "module": "#c2a5cf"}


@dataclass
class Call:
    """A call on one path, with the milliseconds of all steps."""

    name: str
    kind: str
    total: float = 0.0
    inside: dict[str, Call] = field(default_factory=dict)

    def add(self, events: Iterable[Any]) -> None:
        for event in events:
            kind, _, name = event.name.rpartition("|")
            kind = kind or "aten"
            name = name.removeprefix("aten::").removeprefix("autograd::engine::evaluate_function: ")
            call = self.inside.setdefault(name, Call(name, kind))
            call.total += event.cpu_time_total / 1000
            call.add(event.cpu_children)


def name_modules(model: nn.Module) -> None:
    """Let the profiler see in which module an operator runs."""
    running: list[Any] = []

    def before(module: nn.Module, _: Any) -> None:
        running.append(record_function(f"module|{type(module).__name__}"))
        running[-1].__enter__()

    def after(*_: Any) -> None:
        running.pop().__exit__(None, None, None)

    for module in model.modules():
        if any(True for _ in module.children()):
            module.register_forward_pre_hook(before)
            module.register_forward_hook(after)


def profiled(step: Step) -> Call:
    for part in (*step.parts().values(), *step.parts().values()):
        part()
    name_modules(step.model)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(STEPS):
            for name, part in step.parts().items():
                with record_function(f"part|{name}"):
                    part()
    root = Call("step", "part")
    events = found.events() or []
    root.add(event for event in events if event.cpu_parent is None)
    root.total = sum(call.total for call in root.inside.values())
    return root


def boxes(call: Call, *, left: float, depth: int) -> Iterator[tuple[Call, float, int]]:
    """Yield each call that is wide enough with its place, largest first among neighbours."""
    yield call, left, depth
    for inner in sorted(call.inside.values(), key=lambda c: -c.total):
        if inner.total:
            yield from boxes(inner, left=left, depth=depth + 1)
            left += inner.total


def draw(root: Call, out: Path) -> None:
    shown = [box for box in boxes(root, left=0, depth=0) if box[0].total > LEAST * root.total]
    rows = 1 + max(depth for *_, depth in shown)
    figure = Figure(figsize=(WIDTH, ROW * rows))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, root.total), ylim=(rows, 0))
    axes.axis("off")
    for call, left, depth in shown:
        axes.barh(
            depth + 0.5, call.total, left=left, height=0.95, color=COLOURS[call.kind], ec="white"
        )
        share = call.total / root.total
        room = int(share * WIDTH * 15)  # letters
        label = f"{call.name} {share:.0%}"
        if room >= 3:
            label = label if len(label) <= room else call.name[: room - 1] + "…"
            axes.text(left + 0.002 * root.total, depth + 0.55, label, va="center", fontsize=7)
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(1)
    root = profiled(Step(CASES[given.case]))
    for call in root.inside.values():
        print(f"{call.name}: {call.total / STEPS:.1f} ms a step")
    draw(root, given.out)


if __name__ == "__main__":
    main()
