"""Seconds of CPU time for a token, as a step grows from 1k to 64k packed tokens.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/speed/linearity.py --out docs/results/speed

Forward and backward of one step with `rows_per_batch=8`, K = 4, 64 image tokens.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from cases import CASES, samples
from compare import machine
from ours import build, collator_of, encoder_of, processor_of

from dress.objectives.conditional_lm import ConditionalLM
from dress.types import EncodedGroup, TokenBatch

SIZES = (1_000, 4_000, 16_000, 64_000)


def steps(groups: list[EncodedGroup], collate: Any, size: int) -> list[TokenBatch]:
    """Repeat the groups until a step holds `size` tokens."""
    chosen, tokens = [], 0
    for number, group in enumerate(itertools.cycle(groups)):
        if tokens >= size:
            return list(collate(chosen))
        chosen.append(replace(group, id=str(number)))
        tokens += collate([group])[0].input_ids.numel()
    raise AssertionError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    torch.set_float32_matmul_precision("highest")
    case = CASES["sft_k4_64"]
    model = build(case).train()
    encode = encoder_of(case, processor_of(model, image_tokens=case.image_tokens))
    groups = [encode(sample, epoch=0) for sample in samples(case)]
    collate = collator_of(model, image_tokens=case.image_tokens)
    collate.rows_per_batch = 8
    found = {}
    for size in SIZES:
        batches = steps(groups, collate, size)
        tokens = sum(batch.input_ids.numel() for batch in batches)
        spent = []
        for _ in range(max(1, 8_000 // size)):
            began = time.process_time()
            for batch in batches:
                ConditionalLM()(model, batch).loss_sum.backward()
            spent.append((time.process_time() - began) / tokens)
        model.zero_grad()
        found[size] = {"tokens": tokens, "batches": len(batches), "cpu_us": 1e6 * median(spent)}
        print(size, found[size], flush=True)
    if out:
        (out / "linearity.json").write_text(json.dumps(machine() | {"sizes": found}, indent=1))


if __name__ == "__main__":
    main()
