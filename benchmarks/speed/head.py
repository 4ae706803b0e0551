"""Memory and time of the loss over a large vocabulary: logits whole, and in pieces.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/speed/head.py --out docs/results/speed

A Llama of one layer and width 512 with 32,000 words, whose head rests as with LoRA. Each size and
way is a process of its own; peak memory is that of the process less what it had before the step.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch

from dress.modeling import head
from dress.modeling.language import causal_lm
from dress.objectives.functional import is_top_token, target_log_probs

VOCABULARY, WIDTH = 32_000, 512
TARGETS = (1024, 2048, 4096, 8192)
REPEATS = 5


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(way: str, targets: int) -> dict[str, float]:
    shape = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1}
    language = causal_lm(
        config=shape | {"model_type": "llama", "num_attention_heads": 8, "vocab_size": VOCABULARY},
        random_init=True,
    ).requires_grad_(False)
    torch.manual_seed(0)
    states = torch.randn(targets, WIDTH, requires_grad=True)
    ids, rows = torch.randint(VOCABULARY, (targets,)), torch.arange(targets)
    reads = (target_log_probs, is_top_token)
    before, times = peak_mb(), []
    for _ in range(REPEATS):
        began = time.process_time()
        if way == "whole":
            logits = head.logits_of(language, states)
            log_probs, _ = (read(logits, rows, ids) for read in reads)
            del logits
        else:
            log_probs, _ = head.read_in_pieces(
                language, states, target_logit=rows, target_ids=ids, reads=reads
            )
        log_probs.sum().backward()
        times.append(time.process_time() - began)
        del log_probs
    return {"peak_mb": peak_mb() - before, "cpu_s": median(times)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=2)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given.one[0], int(given.one[1]))))
        return
    sizes: dict[str, dict[str, dict[str, float]]] = {}
    for targets in TARGETS:
        sizes[str(targets)] = {}
        for way in ("whole", "pieces"):
            command = [sys.executable, __file__, "--one", way, str(targets)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            sizes[str(targets)][way] = json.loads(done.stdout)
    record = {"vocabulary": VOCABULARY, "width": WIDTH, "logits": head.LOGITS, "sizes": sizes}
    (given.out / "head.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
