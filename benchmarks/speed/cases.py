"""What is compared: shapes, rows and one workload that both sides read, all from a seed."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image
from transformers import PreTrainedTokenizerFast

from dress.chat.condition import Condition
from dress.chat.template import ChatTemplate
from dress.modeling.tokenizer import train_tokenizer
from dress.types import Dialogue, Feedback, Judgement, Sample, Turn

TOWER = {"width": 128, "layers": 4, "head_width": 32, "mlp_ratio": 4.0}
LANGUAGE = {
    "model_type": "llama",
    "vocab_size": 1000,
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "intermediate_size": 512,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
}
TINY = LANGUAGE | {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 384}
LORA = {"r": 8, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"}
LEARNING_RATE, CLIP = 1e-4, 1.0
SYLLABLES = [a + b for a, b in itertools.product("bdfgklmnprst", "aeiou")][:20]
WORDS = [a + b for a in SYLLABLES for b in SYLLABLES]
TEMPLATE = ChatTemplate()
CONDITION = Condition(form="both", dropout=0.0)


@dataclass(frozen=True, kw_only=True)
class Case:
    """`groups` prompts with `responses` answers each; an epoch is all of them, in steps of 8 rows.

    A row is a response, for DPO a pair: responses 0 and 1, 2 and 3. `peer_rows` is how many rows
    TRL's best-tuned run takes in one forward pass.
    """

    title: str
    objective: Literal["sft", "dpo"]
    responses: int
    image_px: int
    lora: bool
    groups: int
    peer_rows: int = 8
    patch: int = 8
    language: Mapping[str, Any] = field(default_factory=lambda: LANGUAGE)

    @property
    def rows_of_group(self) -> int:
        return self.responses // 2 if self.objective == "dpo" else self.responses

    @property
    def groups_per_step(self) -> int:
        return 8 // self.rows_of_group

    @property
    def rows(self) -> int:
        return self.groups * self.rows_of_group

    @property
    def image_tokens(self) -> int:
        return (self.image_px // self.patch) ** 2


CASES = {
    "sft_k4_64": Case(
        title="critique-conditioned, K = 4, 64 image tokens",
        objective="sft",
        responses=4,
        image_px=64,
        lora=False,
        groups=24,
    ),
    "sft_lora_k4_256": Case(
        title="critique-conditioned LoRA, K = 4, 256 image tokens",
        objective="sft",
        responses=4,
        image_px=128,
        lora=True,
        groups=12,
    ),
    "sft_k1_64": Case(
        title="nothing shared, K = 1, 64 image tokens",
        objective="sft",
        responses=1,
        image_px=64,
        lora=False,
        groups=64,
    ),
    "dpo_lora_256": Case(
        title="DPO LoRA, two pairs a prompt, 256 image tokens",
        objective="dpo",
        responses=4,
        image_px=128,
        lora=True,
        groups=12,
        peer_rows=2,
    ),
    "tiny_sft_k4": Case(
        title="`model=tiny`, critique-conditioned, K = 4, 9 image tokens",
        objective="sft",
        responses=4,
        image_px=48,
        lora=False,
        groups=48,
        patch=16,
        language=TINY,
    ),
    "tiny_sft_k1": Case(
        title="`model=tiny`, nothing shared, K = 1, 9 image tokens",
        objective="sft",
        responses=1,
        image_px=48,
        lora=False,
        groups=128,
        patch=16,
        language=TINY,
    ),
    "tiny_dpo": Case(
        title="`model=tiny`, DPO LoRA, two pairs a prompt, 9 image tokens",
        objective="dpo",
        responses=4,
        image_px=48,
        lora=True,
        groups=48,
        patch=16,
        language=TINY,
    ),
}


def samples(case: Case, *, seed: int = 0) -> list[Sample]:
    """Draw noise images, questions of 8-20 words, critiques and answers of log-normal lengths."""
    rng = random.Random(seed)
    return [_sample(case, number, rng) for number in range(case.groups)]


def _sample(case: Case, number: int, rng: random.Random) -> Sample:
    pixels = np.random.default_rng(number).integers(0, 256, (case.image_px, case.image_px, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, format="PNG")
    question = _words(rng.randint(8, 20), rng)
    dialogues = []
    for _ in range(case.responses):
        critique = _words(_length(rng, median=10), rng)
        feedback = Feedback({"helpfulness": Judgement(rng.randint(1, 4), critique)})
        answer = _words(_length(rng, median=22), rng)
        kept = feedback if case.objective == "sft" else None
        dialogues.append(Dialogue((Turn(question, answer, kept),)))
    return Sample(f"g{number}", (file.getvalue(),), tuple(dialogues))


def _length(rng: random.Random, *, median: int) -> int:
    return min(150, max(3, round(median * rng.lognormvariate(0, 0.65))))


def _words(number: int, rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=number))


def tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word."""
    texts = [f"USER: FEEDBACK: helpfulness 1 2 3 4: ASSISTANT: {word}" for word in WORDS]
    return train_tokenizer(texts * 2, vocab_size=LANGUAGE["vocab_size"])


def peer_rows(case: Case, drawn: Sequence[Sample]) -> list[dict[str, Any]]:
    """Write the same rows as TRL reads them: text of prompt and completion, one image each."""
    rows = []
    for sample in drawn:
        texts = [_halves(dialogue.turns[0]) for dialogue in sample.dialogues]
        image = {"bytes": sample.images[0], "path": None}
        if case.objective == "sft":
            rows += [{"images": [image], "prompt": p, "completion": c} for p, c in texts]
        else:
            rows += [
                {"images": [image], "prompt": p, "chosen": chosen, "rejected": rejected}
                for (p, chosen), (_, rejected) in zip(texts[::2], texts[1::2], strict=True)
            ]
    return rows


def _halves(turn: Turn) -> tuple[str, str]:
    condition = CONDITION.text(turn.feedback)
    prompt = TEMPLATE.render([turn], num_images=1, condition=condition, prompt_only=True).text
    whole = TEMPLATE.render([turn], num_images=1, condition=condition).text
    return prompt, whole[len(prompt) :]
