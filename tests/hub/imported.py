"""A released model as ours, without a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dress.assistant import Assistant
from dress.loading import assemble
from dress.modeling.build import build_model
from dress.modeling.hub.llava import described, released_prompt
from dress.modeling.tokenizer import load_tokenizer


def specification(folder: Path) -> dict[str, Any]:
    found = described(str(folder))
    common = {"name": None, "random_init": False}
    return {
        "name": str(folder),
        "random_init": False,
        "vision": {**common, "pretrained": None, **found["vision"]},
        "projector": {"kind": "mlp", **found["projector"]},
        "language": {**common, "dtype": "float32", "attention": "eager", **found["language"]},
        "max_length": 400,
    }


def import_model(folder: Path) -> Assistant:
    spec, tokenizer = specification(folder), load_tokenizer(str(folder))
    config = {
        "model": spec,
        "template": {"begin": "auto", **released_prompt(str(folder))},
        "condition": {"form": "both", "dropout": 0.0},
    }
    model = build_model(spec, tokenizer=tokenizer).requires_grad_(False).eval()
    return assemble(config, model=model, tokenizer=tokenizer)
