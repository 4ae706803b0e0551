"""One GPU: step time, samples a second and MFU of LoRA on token trees. Not run so far.

    python benchmarks/speed/gpu.py --model dress_13b --attention auto sdpa
    python benchmarks/speed/gpu.py --model llava_7b --responses 1

Random weights in bf16, 224 px, K = 4; prompts of 40, critiques of 40-80, responses of 60-200 words.
With one response an image `auto` takes flash-attn, if it is installed, instead of FlexAttention.
MFU counts 4 N FLOPs a computed token (forward, gradient of inputs; LoRA has no gradient of
frozen weights), over 989 TFLOP/s and over the product rate measured in the same run.
`over_padded_ceiling` are samples a second over those of a trainer that computes each response with
its whole prefix, without any padding, at the measured product rate: above 1 none can keep up.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from dress.data.collate import TreeCollator
from dress.modeling.build import build_model
from dress.modeling.lvlm import LVLM
from dress.modeling.tokenizer import train_tokenizer
from dress.modeling.trainable import set_trainable
from dress.objectives.conditional_lm import ConditionalLM
from dress.types import Encoded, EncodedGroup, TokenBatch

CONF = Path(__file__).resolve().parents[2] / "conf"
PEAK = 989e12
STEPS, WARM_UP = 10, 3


def model_of(name: str, attention: str, device: str) -> LVLM:
    overrides = [f"model={name}", "stage=stage2"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        spec: Any = OmegaConf.to_container(compose("run", overrides).model, resolve=True)
    spec["language"] |= {"attention": attention, "random_init": True}
    spec["vision"]["random_init"] = True
    tokenizer = train_tokenizer([" ".join(map(str, range(500)))], vocab_size=1000)
    with torch.device(device):
        model = build_model(spec, tokenizer=tokenizer)
    model.vision.bfloat16()
    set_trainable(model, spec["trainable"]["stage2"])
    return model.train()


def group(model: LVLM, number: int, rng: random.Random, *, responses: int) -> EncodedGroup:
    def words(count: int) -> list[int]:
        return rng.choices(range(10, 300), k=count)

    image = [model.image_token_id] * model.vision.num_tokens
    prompt, sequences = [1, *image, *words(40)], []
    for _ in range(responses):
        critique, answer = words(rng.randint(40, 80)), words(rng.randint(60, 200))
        ids = np.array(prompt + critique + answer)
        mask = np.arange(len(ids)) >= len(prompt) + len(critique)
        sequences.append(Encoded(ids, mask, (str(number),)))
    size = model.vision.image_size
    pixels = torch.full((size, size, 3), number % 256, dtype=torch.uint8)
    return EncodedGroup(str(number), tuple(sequences), {str(number): pixels})


def product_rate(device: str) -> float:
    side = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    return 2 * side**3 / seconds(lambda: a @ b, device)


def seconds(run: Any, device: str) -> float:
    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    times = []
    for _ in range(STEPS):
        wait()
        began = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - began)
    return median(times)


def measured(
    model: LVLM, *, groups: int, row_tokens: int, responses: int, device: str
) -> dict[str, float | None]:
    collate = TreeCollator(
        pad_token_id=model.pad_token_id,
        image_token_id=model.image_token_id,
        num_image_tokens=model.vision.num_tokens,
        row_tokens=row_tokens,
        pad_to_multiple=128,
    )
    drawn = [group(model, n, random.Random(n), responses=responses) for n in range(groups)]
    (batch,) = collate(drawn)
    moved: TokenBatch = batch.to(device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=device == "cuda")

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = ConditionalLM()(model, moved).loss_sum
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(WARM_UP):
        step()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    took, rate = seconds(step, device), product_rate(device)
    weights = sum(p.numel() for n, p in model.language.named_parameters() if "embed" not in n)
    flops = 4 * weights * batch.input_ids.numel() / took
    logical = sum(len(s.input_ids) for g in drawn for s in g.sequences)
    return {
        "step_s": took,
        "samples_per_s": batch.num_sequences / took,
        "tokens": batch.input_ids.numel(),
        "logical_tokens": logical,
        "over_padded_ceiling": 4 * weights * logical / rate / took,
        "mfu_of_989": flops / PEAK,
        "mfu_of_measured": flops / rate,
        "product_tflops": rate / 1e12,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="dress_13b")
    parser.add_argument("--attention", nargs="+", default=["auto", "sdpa"])
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--responses", type=int, default=4)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--row-tokens", type=int, default=4096)
    given = parser.parse_args()
    for attention in given.attention:
        model = model_of(given.model, attention, given.device)
        figures = measured(
            model,
            groups=given.groups,
            row_tokens=given.row_tokens,
            responses=given.responses,
            device=given.device,
        )
        print(json.dumps({"model": given.model, "attention": attention} | figures, indent=1))
        del model
        if given.device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
