"""A released model as ours, without a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dress.assistant import Assistant, PromptBatch
from dress.chat.images import png
from dress.loading import assemble
from dress.modeling.build import build_model
from dress.modeling.hub.released import described, released_prompt
from dress.modeling.tokenizer import image_token_of, load_tokenizer
from dress.types import Turn
from tests.hub.released_models import Theirs, photographs

QUESTION = "What is in the picture?"


def specification(folder: Path, *, one_tile: bool = False) -> dict[str, Any]:
    found = described(str(folder), one_tile=one_tile)
    common = {"name": None, "random_init": False}
    return {
        "name": str(folder),
        "random_init": False,
        "vision": {**common, "pretrained": None, **found["vision"]},
        "projector": {"kind": "mlp", **found["projector"]},
        "language": {**common, "dtype": "float32", "attention": "eager", **found["language"]},
        "tokenizer": {"name": str(folder), **found.get("tokenizer", {})},
        "max_length": 400,
    }


def import_model(folder: Path, *, one_tile: bool = False) -> Assistant:
    spec = specification(folder, one_tile=one_tile)
    tokenizer = load_tokenizer(str(folder), image_token=image_token_of(spec))
    config = {
        "model": spec,
        "template": {"begin": "auto", **released_prompt(str(folder))},
        "condition": {"form": "both", "dropout": 0.0},
    }
    model = build_model(spec, tokenizer=tokenizer).requires_grad_(False).eval()
    return assemble(config, model=model, tokenizer=tokenizer)


def prompt(ours: Assistant, images: list[Image.Image]) -> tuple[list[int], PromptBatch]:
    names, pixels = ours.processor.load_images([png(image) for image in images])
    encoded = ours.processor.encode([Turn(QUESTION)], images=names, prompt_only=True)
    return encoded.input_ids.tolist(), ours.collate([encoded], pixels)


def check_same(ours: Assistant, theirs: Theirs, *, count: int) -> None:
    """Compare pixels, tokens, logits and greedy answers on pictures of three shapes."""
    said: set[int] = set()
    for picture in photographs():
        images = [picture, photographs()[1].rotate(180)][:count]
        given = theirs.inputs(QUESTION, images)
        ids, batch = prompt(ours, images)
        assert ids == given["input_ids"][0].tolist()
        model = ours.model
        if count:
            pixels = given["pixel_values"].flatten(0, -4)
            torch.testing.assert_close(
                model.vision.normalized(batch.pixels), pixels, atol=1e-6, rtol=0
            )
        with torch.no_grad():
            embeds = model.embed(batch.input_ids, batch.image_slot, batch.pixels)
            mine = model.language(inputs_embeds=embeds).logits
            torch.testing.assert_close(mine, theirs.model(**given).logits, atol=1e-5, rtol=0)
        answer = theirs.answer(given)
        made = model.generate(**vars(batch), max_new_tokens=12)[0].tolist()
        assert made[: len(answer)] == answer
        said |= {*answer}
    assert len(said) > 3
