"""K answers a prompt: our decoding beside transformers' generate(num_return_sequences=K).

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/speed/sampling.py --out docs/results/speed

Both read the same embeddings of image and prompt and draw to the same length; in turns.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from cases import CASES, samples
from compare import machine
from ours import build, processor_of
from torch import Tensor
from transformers import GenerationConfig

from dress.modeling.lvlm import LVLM

COPIES, PROMPTS, NEW, REPEATS = 8, 4, 48, 5


def prompts(model: LVLM) -> dict[str, Tensor]:
    """Left-padded prompts with one image each."""
    case = CASES["dpo_lora_256"]
    processor = processor_of(model, image_tokens=case.image_tokens)
    rows, pixels = [], []
    for sample in samples(case)[:PROMPTS]:
        names, images = processor.load_images(sample.images)
        turns = sample.dialogues[0].turns
        rows.append(processor.encode(turns, images=names, prompt_only=True).input_ids)
        pixels += list(images.values())
    width = max(map(len, rows))
    ids = torch.full((PROMPTS, width), model.pad_token_id)
    for row, tokens in enumerate(rows):
        ids[row, width - len(tokens) :] = torch.from_numpy(tokens)
    is_image = (ids == model.image_token_id).flatten()
    slots = torch.where(is_image, is_image.long().cumsum(0) - 1, -1).view_as(ids)
    mask = ids != model.pad_token_id
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "image_slot": slots,
        "pixels": torch.stack(pixels),
    }


@torch.no_grad()
def theirs(model: LVLM, given: dict[str, Tensor]) -> Tensor:
    embeds = model.embed(given["input_ids"], given["image_slot"], given["pixels"])
    return model.language.generate(
        inputs_embeds=embeds,
        attention_mask=given["attention_mask"].long(),
        generation_config=GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            max_new_tokens=NEW,
            num_return_sequences=COPIES,
            pad_token_id=model.pad_token_id,
            eos_token_id=model.eos_token_id,
        ),
    )


def ours(model: LVLM, given: dict[str, Tensor]) -> Tensor:
    return model.generate(**given, max_new_tokens=NEW, temperature=1.0, num_return_sequences=COPIES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    torch.set_float32_matmul_precision("highest")
    model = build(replace(CASES["dpo_lora_256"], lora=False)).eval()
    given = prompts(model)
    spent: dict[str, list[float]] = {"ours": [], "generate": []}
    drawn: dict[str, int] = {}
    same = True
    for repeat in range(REPEATS + 1):
        answers = []
        for name, run in (("ours", ours), ("generate", theirs)):
            torch.manual_seed(repeat)
            began = time.process_time()
            tokens = run(model, given)
            spent[name].append(time.process_time() - began)
            answers.append(tokens)
            drawn[name] = drawn.get(name, 0) + int((tokens != model.pad_token_id).sum())
        same = same and torch.equal(*answers)
    cpu = {name: median(times[1:]) for name, times in spent.items()}
    record = machine() | {
        "copies": COPIES,
        "prompts": PROMPTS,
        "new_tokens": NEW,
        "image_tokens": CASES["dpo_lora_256"].image_tokens,
        "cpu_s": cpu,
        "tokens_per_cpu_s": {n: drawn[n] / (REPEATS + 1) / s for n, s in cpu.items()},
        "ratio": cpu["generate"] / cpu["ours"],
        "same_tokens": same,
    }
    print(json.dumps(record, indent=1))
    if out:
        (out / "sampling.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
