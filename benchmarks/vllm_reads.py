"""See what vLLM makes of the folders of `job=export`: which model, and which tokens of a prompt.

    python benchmarks/vllm_reads.py ARTIFACT/model [...]

needs vLLM and no GPU: nothing is computed by its kernels. Printed are the class that it chooses,
and whether a question about a picture has the tokens that transformers gives it.
"""

from __future__ import annotations

import sys
from typing import Any

from PIL import Image
from transformers import AutoProcessor
from vllm.config import ModelConfig
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import ProcessorInputs, TimingContext

QUESTION = "What is in the picture?"
CHAT = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]},
]


def tokens_of_both(folder: str, config: Any, image: Image.Image) -> tuple[list[int], list[int]]:
    """Return the prompt as transformers' processor and as vLLM's make it."""
    processor = AutoProcessor.from_pretrained(folder)
    prompt = processor.apply_chat_template(CHAT, add_generation_prompt=True)
    theirs = processor(text=prompt, images=image, add_special_tokens=False)["input_ids"][0]
    reader = MULTIMODAL_REGISTRY.create_processor(config)
    inputs = ProcessorInputs(
        prompt=processor.tokenizer(prompt, add_special_tokens=False)["input_ids"],
        mm_data_items=reader.info.parse_mm_data({"image": image}),
        hf_processor_mm_kwargs={},
    )
    return list(theirs), list(reader.apply(inputs, TimingContext())["prompt_token_ids"])


def main(folders: list[str]) -> None:
    image = Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 50).convert("RGB")
    for folder in folders:
        config = ModelConfig(model=folder, tokenizer=folder, dtype="float32", max_model_len=512)
        theirs, vllm = tokens_of_both(folder, config, image)
        print(f"{folder}: {', '.join(config.architectures)}, {len(vllm)} tokens of the prompt")
        print("the same as transformers'" if theirs == vllm else f"transformers has {len(theirs)}")


if __name__ == "__main__":
    main(sys.argv[1:])
