"""A small model of the real parts, records about drawn scenes, and both joined to an assistant."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from dress.assistant import Assistant
from dress.chat.condition import Condition
from dress.data.collate import TreeCollator
from dress.loading import assemble
from dress.modeling.build import build_model
from dress.modeling.tokenizer import train_tokenizer
from dress.types import Dialogue, Sample, TokenBatch, Turn
from dress.world.corpus import Flaws, flawed_response
from dress.world.questions import Question, ask, reference
from dress.world.render import render
from dress.world.scene import draw_scenes
from dress.world.scene_oracle import Oracle

VISION = {
    "name": None,
    "pretrained": None,
    "config": {
        "image_size": 48,
        "patch_size": 16,
        "width": 32,
        "layers": 2,
        "head_width": 16,
        "mlp_ratio": 2.0,
    },
    "image_size": 48,
    "layer": -1,
    "random_init": True,
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
GPT2 = {
    "model_type": "gpt2",
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 512,
    "initializer_range": 0.2,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
ALWAYS_FLAWED = Flaws(hallucination=0.7, omission=0.7, terse=0.5, wrong_answer=0.6)


def feedback_samples(count: int, *, responses: int = 2, seed: int = 0) -> list[Sample]:
    """Records as job=annotate writes them: K responses each, with the oracle's feedback."""
    rng, oracle = random.Random(seed), Oracle()
    samples = []
    for number, scene in enumerate(draw_scenes(split="annotate", count=count, seed=seed)):
        question = ask(("describe", "count", "harmful")[number % 3], scene, rng)
        assert question is not None
        dialogues = []
        for _ in range(responses):
            text = flawed_response(question, scene, ALWAYS_FLAWED, rng)
            feedback = oracle.annotate(question, scene, text, rng=rng)
            dialogues.append(Dialogue((Turn(question.text, text, feedback),)))
        samples.append(Sample(f"s{number}", (render(scene, seed=number),), tuple(dialogues)))
    return samples


def with_an_earlier_turn(sample: Sample) -> Sample:
    """The same record after a turn that was answered and refined."""
    dialogues = tuple(
        Dialogue((replace(d.turns[0], user="What do you see?"), *d.turns)) for d in sample.dialogues
    )
    return replace(sample, id=f"{sample.id}-long", dialogues=dialogues)


def answered_samples() -> list[Sample]:
    """Four pictures, one question: only who looks can answer."""
    rng = random.Random(0)
    question = Question("describe", "Describe the picture.")
    scenes = list(draw_scenes(split="train", count=4, seed=5))
    return [
        Sample(
            f"a{number}",
            (render(scene, seed=number),),
            (Dialogue((Turn(question.text, reference(question, scene, rng)),)),),
        )
        for number, scene in enumerate(scenes)
    ]


def texts_of(samples: Sequence[Sample]) -> list[str]:
    return [
        text
        for sample in samples
        for dialogue in sample.dialogues
        for turn in dialogue.turns
        for text in (f"USER: {turn.user} FEEDBACK: ASSISTANT:", f" {turn.model}")
    ]


def model_config(
    language: Mapping[str, Any] = LLAMA, vision: Mapping[str, Any] = VISION
) -> dict[str, Any]:
    """What a model's artifact says of it."""
    spec = {
        "vision": dict(vision),
        "projector": {"kind": "linear"},
        "language": {
            "name": None,
            "config": language,
            "random_init": True,
            "dtype": "float32",
            "attention": "eager",
            "lora": None,
        },
        "max_length": 400,
    }
    template = {"system": "", "user": "USER: ", "image": "<image>\n"}
    return {"model": spec, "template": template, "condition": {"form": "both", "dropout": 0.0}}


def make_assistant(
    samples: Sequence[Sample],
    *,
    language: Mapping[str, Any] = LLAMA,
    vision: Mapping[str, Any] = VISION,
    seed: int = 0,
) -> Assistant:
    torch.manual_seed(seed)
    config = model_config(language, vision)
    tokenizer = train_tokenizer(texts_of(samples), vocab_size=400)
    model = build_model(config["model"], tokenizer=tokenizer)
    return assemble(config, model=model, tokenizer=tokenizer)


def make_collator(
    assistant: Assistant,
    *,
    share_prefixes: bool = True,
    rows_per_batch: int | None = None,
    row_tokens: int | None = None,
) -> TreeCollator:
    return TreeCollator(
        pad_token_id=assistant.model.pad_token_id,
        image_token_id=assistant.model.image_token_id,
        num_image_tokens=assistant.processor.num_image_tokens,
        share_prefixes=share_prefixes,
        rows_per_batch=rows_per_batch,
        row_tokens=row_tokens,
    )


def plain_condition() -> Condition:
    return Condition(form="both", dropout=0.0)


def count_of(batches: Sequence[TokenBatch]) -> int:
    return sum(len(batch.target_node) for batch in batches)
