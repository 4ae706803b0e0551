"""Save and load a trained assistant: weights, tokenizer, template and conditions. No Lightning."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast

from dress.artifact import Artifact
from dress.artifact_files import CONFIG
from dress.assistant import Assistant
from dress.chat.condition import Condition, has_learned
from dress.chat.processor import Processor
from dress.chat.template import ChatTemplate
from dress.data.sources.source import Source
from dress.distributed import place
from dress.errors import InputError
from dress.files import naming, read_json, write_json
from dress.modeling.build import build_hollow, build_model, public_base, settings_of
from dress.modeling.checkpoint import load_weights, save_weights, stored_parts
from dress.modeling.language import full_precision
from dress.modeling.lvlm import LVLM
from dress.modeling.sharding import shard
from dress.modeling.tokenizer import image_token_of, load_tokenizer, train_tokenizer
from dress.modeling.tower import Tower
from dress.modeling.trainable import set_trainable

WEIGHTS, TOKENIZER, PREPROCESS = "weights", "tokenizer", "preprocess.json"
TOLERANCE = 1e-3  # of features, by their length; another activation makes three times as much


def load(path: str | os.PathLike[str]) -> Assistant:
    """Load a model artifact for use: `load(path).respond(image, question)`.

    Raises InputError where the path is not a finished model artifact.
    """
    return load_artifact(Artifact.open(path))


def load_artifact(artifact: Artifact, *, hollow: bool = False) -> Assistant:
    """Load a model that does not train; a `hollow` one gets its weights from another rank."""
    tokenizer = artifact_tokenizer(artifact)
    spec = artifact_spec(artifact)
    if hollow:
        model = build_hollow(spec, tokenizer=tokenizer)
    else:
        stored = stored_parts(artifact.path / WEIGHTS)
        model = build_model(spec, tokenizer=tokenizer, stored=stored)
        restore(model, artifact, spec=spec)
    model.requires_grad_(False).eval()
    return assemble(artifact.config, model=model, tokenizer=tokenizer)


def value_model(reward: Artifact, policy: Assistant) -> Assistant:
    """Build a model with the reward model's weights and a head of zeros, ready to train.

    It rests in shares where the policy does.
    """
    spec = artifact_spec(reward)
    tokenizer = artifact_tokenizer(reward)
    if tokenizer.get_vocab() != policy.processor.tokenizer.get_vocab():
        raise InputError(
            f"{reward.path} has another tokenizer than the policy, so that no value model can be "
            "made of it: give a reward model from the same stage 1."
        )
    if policy.model.sharded and place()[0] > 0:
        model = build_hollow(spec, tokenizer=tokenizer)
    else:
        model = build_model(spec, tokenizer=tokenizer)
        restore(model, reward, spec=spec)
    assert model.scalar_head is not None
    with torch.no_grad():
        for parameter in model.scalar_head.parameters():
            parameter.zero_()
    set_trainable(model, spec["trainable"])
    if policy.model.sharded:
        shard(model, policy.model.device)
    return assemble(reward.config, model=model, tokenizer=tokenizer)


def artifact_spec(artifact: Artifact) -> dict[str, Any]:
    """Return what `build_model` needs."""
    spec = artifact.config.get("model")
    if not isinstance(spec, Mapping) or not isinstance(spec.get("max_length"), int):
        raise InputError(f"{artifact.path / CONFIG} describes no model: give another artifact.")
    return dict(spec)


def restore(model: LVLM, artifact: Artifact, *, spec: Mapping[str, Any]) -> None:
    """Give a model that was built from `spec` the weights of an artifact, adapters merged.

    Raises InputError where its tower then sees something else than in its training.
    """
    load_weights(model, artifact.path / WEIGHTS, base=public_base(spec), merge_adapters=True)
    check_tower(artifact.path / PREPROCESS, model.vision)


def assemble(
    config: Mapping[str, Any], *, model: LVLM, tokenizer: PreTrainedTokenizerFast
) -> Assistant:
    """Join a model with the processor and the condition that `config` describes."""
    condition = settings_of(config, "condition", Condition, "form", "dropout")
    template = settings_of(config, "template", ChatTemplate)
    processor = Processor(
        tokenizer=tokenizer,
        template=ChatTemplate(**({"begin": ""} | template)),  # a config names what there is
        preprocess=model.vision.preprocess,
        num_image_tokens=model.num_image_tokens,
        max_length=config["model"]["max_length"],
        decode_at_least=model.vision.image_size if model.vision.draft else None,
    )
    return Assistant(
        model=model,
        processor=processor,
        condition=Condition(**condition, learned=has_learned(config)),
    )


def save(assistant: Assistant, directory: Path, *, spec: Mapping[str, Any]) -> None:
    """Write what `load` needs besides the artifact's config.yaml; rank 0 does (`save_weights`)."""
    save_weights(assistant.model, directory / WEIGHTS, base=public_base(spec))
    seen = probe(assistant.model.vision)
    if place()[0] > 0:
        return
    with naming(directory / TOKENIZER):
        assistant.processor.tokenizer.save_pretrained(directory / TOKENIZER)
    write_json(directory / PREPROCESS, seen)


def artifact_tokenizer(artifact: Artifact) -> PreTrainedTokenizerFast:
    if artifact.lineage["kind"] != "model":
        raise InputError(
            f"{artifact.path} holds {artifact.lineage['kind']}, not a model: give the folder of a "
            "training run."
        )
    image_token = image_token_of(artifact_spec(artifact))
    return load_tokenizer(str(artifact.path / TOKENIZER), image_token=image_token)


def new_tokenizer(
    config: Mapping[str, Any], *, source: Callable[[], Source]
) -> PreTrainedTokenizerFast:
    """Load the LM's own tokenizer, or train one on the texts of the source and the template's."""
    spec, template = config["model"], config["template"]
    if name := spec["tokenizer"]["name"]:
        return load_tokenizer(name, image_token=image_token_of(spec))
    # the roles stand in every turn: untold of them, BPE spells each of them letter by letter
    roles = [template.get(role) or "" for role in ("system", "user", "condition", "model")]
    texts = chain.from_iterable((text, *roles) for text in source().texts())
    return train_tokenizer(texts, vocab_size=spec["tokenizer"]["vocab_size"])


@torch.no_grad()
def probe(vision: Tower) -> dict[str, list[float]]:
    """What a tower makes of a fixed picture, its visible identity.

    `probe` are the normalised pixels, coarsely; `features` 64 numbers of its output.
    """
    ramp = np.add.outer(np.arange(60) * 3, np.arange(80)).astype(np.uint8)
    picture = Image.fromarray(np.stack([ramp, ramp[::-1], 255 - ramp], axis=-1))
    pixels = vision.preprocess(picture)[None].to(next(vision.parameters()).device)
    pooled = torch.nn.functional.adaptive_avg_pool2d(vision.normalized(pixels), 4)
    was_training = vision.training
    with full_precision(), torch.backends.cudnn.flags(enabled=False):  # in full float32
        features = vision.eval()(pixels).flatten()
    vision.train(was_training)
    chosen = torch.linspace(0, len(features) - 1, 64).long()
    return {
        "probe": [round(value, 4) for value in pooled.flatten().tolist()],
        "features": features[chosen.to(features.device)].tolist(),
    }


def check_tower(path: Path, vision: Tower) -> None:
    """Refuse a tower that would see otherwise than in its training."""
    saved, here = read_json(path), probe(vision)
    pixels, features = saved.get("probe", []), saved.get("features", [])
    if len(pixels) != len(here["probe"]) or not np.allclose(pixels, here["probe"], atol=0.02):
        raise InputError(
            f"{path}: images are prepared otherwise here (mean, std, size or resizing differ): "
            "install the open_clip version that the artifact was trained with."
        )
    if not _agree(features, here["features"]):
        raise InputError(
            f"{path}: the vision tower gives other features here (weights, activation or layer "
            "differ): install the open_clip version that the artifact was trained with."
        )


def _agree(saved: list[float], here: list[float]) -> bool:
    if len(saved) != len(here):
        return False
    apart, length = np.linalg.norm(np.subtract(saved, here)), np.linalg.norm(saved)
    return bool(apart <= TOLERANCE * length)
