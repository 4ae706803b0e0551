"""Seconds of CPU time for a token, as the same groups lie in 1 to 1,000 shards.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/speed/shards.py --out docs/results/speed

A whole epoch of `model=tiny`: open, read in shuffled order, encode, collate, forward, backward.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from cases import CASES, samples
from compare import machine
from ours import build, collator_of, encoder_of, processor_of

from dress.data.rejects import Rejects
from dress.data.shard_writer import ShardWriter
from dress.data.stream import GroupStream, StepLoader, StepStream
from dress.objectives.conditional_lm import ConditionalLM
from dress.types import Sample

GROUPS, SHARDS, REPEATS = 1000, (1, 10, 100, 1000), 3


def write(folder: Path, kept: list[Sample], *, shards: int) -> None:
    with ShardWriter(folder, max_groups=len(kept) // shards) as writer:
        for sample in kept:
            writer.write(sample)


def epoch(folder: Path, model: Any, encoder: Any, collator: Any) -> tuple[int, float]:
    """Return the tokens computed and the CPU seconds of one pass over a directory."""
    began, tokens = time.process_time(), 0
    stream = GroupStream(directory=folder, seed=0)
    steps = StepStream(
        stream=stream, encoder=encoder, collator=collator, groups_per_step=8, stop=len(stream)
    )
    for batches in StepLoader(steps=steps, rejects=Rejects()):
        for batch in batches:
            ConditionalLM()(model, batch).loss_sum.backward()
            tokens += batch.input_ids.numel()
        model.zero_grad()
    return tokens, time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    torch.set_float32_matmul_precision("highest")
    case = replace(CASES["tiny_sft_k4"], groups=GROUPS)
    model = build(case).train()
    encoder = encoder_of(case, processor_of(model, image_tokens=case.image_tokens))
    collator = collator_of(model, image_tokens=case.image_tokens)
    spent: dict[int, list[float]] = {shards: [] for shards in SHARDS}
    with tempfile.TemporaryDirectory(prefix="shards-") as name:
        kept = samples(case)
        for shards in SHARDS:
            write(Path(name) / str(shards), kept, shards=shards)
        for _ in range(REPEATS):
            for shards in SHARDS:
                tokens, seconds = epoch(Path(name) / str(shards), model, encoder, collator)
                spent[shards].append(1e6 * seconds / tokens)
                print(shards, f"{tokens} tokens, {spent[shards][-1]:.1f} us each", flush=True)
    found = {str(shards): {"cpu_us": median(values)} for shards, values in spent.items()}
    record = machine() | {"groups": GROUPS, "shards": found}
    if out:
        (out / "shards.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
