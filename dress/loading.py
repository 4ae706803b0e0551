"""Save and load a trained assistant: weights, tokenizer, template and conditions. No Lightning."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast

from dress.artifact import Artifact
from dress.artifact_files import CONFIG
from dress.assistant import Assistant
from dress.chat.condition import Condition
from dress.chat.processor import Processor
from dress.chat.template import ChatTemplate
from dress.errors import InputError
from dress.files import naming, read_json, write_json
from dress.modeling.build import build_model, public_base, settings_of
from dress.modeling.checkpoint import load_weights, save_weights, stored_parts
from dress.modeling.lvlm import LVLM
from dress.modeling.tokenizer import load_tokenizer

WEIGHTS, TOKENIZER, PREPROCESS = "weights", "tokenizer", "preprocess.json"


def load(path: str | os.PathLike[str]) -> Assistant:
    """Load a model artifact for use: `load(path).respond(image, question, condition="best")`.

    Raises InputError where the path is not a finished model artifact.
    """
    return load_artifact(Artifact.open(path))


def load_artifact(artifact: Artifact) -> Assistant:
    tokenizer = artifact_tokenizer(artifact)
    spec = artifact.config.get("model")
    if not isinstance(spec, Mapping) or not isinstance(spec.get("max_length"), int):
        raise InputError(f"{artifact.path / CONFIG} describes no model: give another artifact.")
    stored = stored_parts(artifact.path / WEIGHTS)
    model = build_model(spec, tokenizer=tokenizer, stored=stored)
    load_weights(model, artifact.path / WEIGHTS, base=public_base(spec), merge_adapters=True)
    model.requires_grad_(False).eval()
    check_preprocess(artifact.path / PREPROCESS, model)
    return assemble(artifact.config, model=model, tokenizer=tokenizer)


def assemble(
    config: Mapping[str, Any], *, model: LVLM, tokenizer: PreTrainedTokenizerFast
) -> Assistant:
    """Join a model with the processor and the condition that `config` describes."""
    condition = settings_of(config, "condition", Condition, "form", "dropout")
    template = settings_of(config, "template", ChatTemplate)
    processor = Processor(
        tokenizer=tokenizer,
        template=ChatTemplate(**template),
        preprocess=model.vision.preprocess,
        num_image_tokens=model.vision.num_tokens,
        max_length=config["model"]["max_length"],
        decode_at_least=model.vision.image_size if model.vision.draft else None,
    )
    return Assistant(
        model=model,
        processor=processor,
        condition=Condition(
            form=condition["form"],
            dropout=condition["dropout"],
            aspect_dropout=condition.get("aspect_dropout", 0.0),
        ),
    )


def save(assistant: Assistant, directory: Path, *, spec: Mapping[str, Any]) -> None:
    """Write what `load` needs besides the artifact's config.yaml."""
    save_weights(assistant.model, directory / WEIGHTS, base=public_base(spec))
    with naming(directory / TOKENIZER):
        assistant.processor.tokenizer.save_pretrained(directory / TOKENIZER)
    write_json(directory / PREPROCESS, {"probe": probe(assistant.model)})


def artifact_tokenizer(artifact: Artifact) -> PreTrainedTokenizerFast:
    if artifact.lineage["kind"] != "model":
        raise InputError(
            f"{artifact.path} holds {artifact.lineage['kind']}, not a model: give the folder of a "
            "training run."
        )
    return load_tokenizer(str(artifact.path / TOKENIZER))


def probe(model: LVLM) -> list[float]:
    """What the tower's preprocessing makes of a fixed picture, coarsely: its visible identity."""
    ramp = np.add.outer(np.arange(60) * 3, np.arange(80)).astype(np.uint8)
    picture = Image.fromarray(np.stack([ramp, ramp[::-1], 255 - ramp], axis=-1))
    pixels = model.vision.preprocess(picture).to(model.device)
    pooled = torch.nn.functional.adaptive_avg_pool2d(model.vision.normalized(pixels[None]), 4)
    return [round(value, 4) for value in pooled.flatten().tolist()]


def check_preprocess(path: Path, model: LVLM) -> None:
    """Refuse a model whose images would be prepared otherwise than in its training."""
    saved, here = read_json(path).get("probe", []), probe(model)
    if len(saved) != len(here) or not np.allclose(saved, here, atol=0.02):
        raise InputError(
            f"{path}: images are prepared otherwise here (mean, std, size or resizing differ): "
            "install the open_clip version that the artifact was trained with."
        )
