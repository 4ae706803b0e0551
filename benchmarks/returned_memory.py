"""Measure what it costs in time that freed memory goes back to the system at once.

    python benchmarks/returned_memory.py tiny_sft_k4 20
    python benchmarks/returned_memory.py 135m 1

trains a case of benchmarks/speed/cases.py, or the model of benchmarks/sharded_memory.py, on one
thread in two processes in turn, with and without `MALLOC_MMAP_THRESHOLD_`, three times. Printed are
the CPU seconds of a step of the optimizer, user and system, and the peak of resident memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median

HERE = Path(__file__).resolve().parent
VARIABLE, THRESHOLD = "MALLOC_MMAP_THRESHOLD_", "262144"
TURNS = 3


def measure(case: str, steps: int) -> None:
    """Print the CPU seconds of a step and the megabytes of this process."""
    import torch

    from dress.objectives.conditional_lm import ConditionalLM

    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("medium" if case == "135m" else "highest")
    if case == "135m":
        sys.argv = sys.argv[:1]
        from sharded_memory import model_of, step

        model = model_of(0)
        batches = step(model, rank=0, world=1)
    else:
        sys.path.insert(0, str(HERE / "speed"))
        from cases import CASES, samples
        from ours import build, collator_of, encoder_of, processor_of

        chosen = CASES[case]
        model = build(chosen)
        tokens = chosen.image_tokens
        encode = encoder_of(chosen, processor_of(model, image_tokens=tokens))
        groups = [encode(s, epoch=0) for s in samples(chosen)[: chosen.groups_per_step]]
        batches = collator_of(model, image_tokens=tokens)(groups)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    objective = ConditionalLM()
    for number in range(steps + 1):
        if number == 1:
            began = time.process_time()
        for batch in batches:
            objective(model, batch).loss_sum.backward()
        optimizer.step()
        optimizer.zero_grad()
    print((time.process_time() - began) / steps, getrusage(RUSAGE_SELF).ru_maxrss / 1024)


def main(case: str, steps: str) -> None:
    found: dict[bool, list[list[float]]] = {False: [], True: []}
    search = os.pathsep.join([str(HERE.parent), str(HERE)])
    for turn in range(2 * TURNS):
        given = turn % 2 == 1
        environment = os.environ | {"PYTHONPATH": search, "MEASURED": "1"}
        if given:
            environment[VARIABLE] = THRESHOLD
        run = subprocess.run(
            [sys.executable, __file__, case, steps],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        numbers = [float(word) for word in run.stdout.split()[-2:]]
        found[given].append(numbers)
        name = "with" if given else "without"
        print(f"{name}: {numbers[0]:.3f} s, {numbers[1]:.0f} MB", flush=True)
    without, with_it = (median(seconds for seconds, _ in found[given]) for given in (False, True))
    print(f"median {without:.3f} s without, {with_it:.3f} s with it: {with_it / without:.3f} times")


if __name__ == "__main__":
    if os.environ.get("MEASURED"):
        measure(sys.argv[1], int(sys.argv[2]))
    else:
        main(*sys.argv[1:])
