"""A tiny tokenizer, processor and pictures, shared by the tests of chat and data."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dress.chat.processor import Processor
from dress.chat.template import ChatTemplate
from dress.records import BANK
from dress.types import Dialogue, Feedback, Judgement, Sample, Turn

SPECIALS = ["<pad>", "<s>", "</s>", "<image>"]
TEXTS = (
    "USER: How many red circles are there? ASSISTANT: There are two red circles.",
    "USER: What is left of the blue square? FEEDBACK: helpfulness 4: Answers fully.",
    "ASSISTANT: A green triangle. Yes, it is. No, it is not. I cannot help with that.",
)


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def preprocess(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.resize((8, 8))))


def make_processor(**changes: Any) -> Processor:
    arguments: dict[str, Any] = {
        "tokenizer": tokenizer(),
        "template": ChatTemplate(),
        "preprocess": preprocess,
        "num_image_tokens": 4,
        "max_length": 200,
    }
    return Processor(**(arguments | changes))


def picture(seed: int = 0, *, size: tuple[int, int] = (16, 12), file_format: str = "JPEG") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, format=file_format)
    return buffer.getvalue()


def feedback(rating: int) -> Feedback:
    return Feedback({aspect: Judgement(rating, BANK[aspect][rating]) for aspect in BANK})


def make_sample(number: int, *, images: int = 1, turns: int = 2, dialogues: int = 1) -> Sample:
    def turn(dialogue: int, index: int) -> Turn:
        return Turn(
            user=f"How many red circles are there, part {index} of {number}?",
            model=f"There are {dialogue + index} circles.",
            feedback=feedback(1 + (number + dialogue + index) % 4),
        )

    return Sample(
        id=f"sample-{number}",
        images=tuple(picture(1000 * number + i) for i in range(images)),
        dialogues=tuple(
            Dialogue(tuple(turn(d, i) for i in range(turns))) for d in range(dialogues)
        ),
        annotations={"task": "count", "truth": [number, 0.5, None]},
    )
