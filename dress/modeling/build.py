"""From a plain specification (conf/model, or an artifact's config.yaml) to a model.

Names are looked up here, never imported: the specification of an artifact is data, not code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from inspect import signature
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.initialization import no_init_weights

from dress.errors import InputError
from dress.modeling.checkpoint import STORED_PARTS, named_tensors
from dress.modeling.head import output_head
from dress.modeling.hub.folder import ReleasedWeights, released_folder
from dress.modeling.hub.weight_names import read_part
from dress.modeling.language import LanguageModel, add_lora, causal_lm, token_embedding
from dress.modeling.lvlm import LVLM
from dress.modeling.projector import PROJECTORS
from dress.modeling.self_check import ways_of
from dress.modeling.specification import tower_weights
from dress.modeling.tokenizer import IMAGE_TOKEN, image_token_of
from dress.modeling.tower import Tower
from dress.modeling.tree_attention import Ways
from dress.modeling.vision import open_clip_tower

Fill = Callable[[nn.Module], Any]  # gives a module the weights of a released model


def build_model(
    spec: Mapping[str, Any],
    *,
    tokenizer: PreTrainedTokenizerFast,
    stored: Collection[str] = (),
    ways: Ways | None = None,
) -> LVLM:
    """Build tower, projector and LM; parts in `stored` get their weights later, from a file.

    `scalar_head: true` in the specification makes it a reward or value model. `ways` are found out
    unless given.
    """
    vision = settings_of(spec, "vision", open_clip_tower, "name", "pretrained", "random_init")
    language = settings_of(spec, "language", causal_lm, "name", "random_init")
    released = _released(spec, stored)
    for part, settings in (("vision", vision), ("language", language)):
        settings["random_init"] = settings["random_init"] or part in {*stored, *released}
    return build_lvlm(
        vision=released.get("vision", _as_built)(open_clip_tower(**vision)),
        language=_language(language, vocab_size=len(tokenizer), fill=released.get("language")),
        projector=_projector(spec, fill=released.get("projector", _as_built)),
        tokenizer=tokenizer,
        image_token=image_token_of(spec),
        scalar_head=spec.get("scalar_head") is True,
        gpu_kernels=language.get("attention", "auto") == "auto",
        ways=ways,
    )


def build_hollow(spec: Mapping[str, Any], *, tokenizer: PreTrainedTokenizerFast) -> LVLM:
    """Build a model whose weights have no values and, until they are touched, take no memory."""
    with no_init_weights():
        model = build_model(spec, tokenizer=tokenizer, stored=STORED_PARTS, ways=Ways())
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            part.tie_weights()
    return model


def public_base(spec: Mapping[str, Any]) -> dict[str, str | None]:
    """Name the public checkpoint each part began from; None for random weights."""
    vision, language = spec["vision"], spec["language"]
    if (name := spec.get("name")) is not None:
        drawn = {part: spec[part]["random_init"] for part in ("vision", "language")}
        drawn["projector"] = spec["random_init"]
        return {part: None if drawn[part] else name for part in drawn}
    return {
        "vision": None if vision["random_init"] else tower_weights(vision),
        "projector": None,
        "language": None if language["random_init"] else language["name"],
    }


def _released(spec: Mapping[str, Any], stored: Collection[str]) -> dict[str, Fill]:
    """Return what fills each part that has the weights of a released model, unless stored."""
    parts = {part for part, base in public_base(spec).items() if base and spec.get("name")}
    if not (parts := parts - {*stored}):
        return {}
    weights = ReleasedWeights(released_folder(spec["name"]))
    return {part: partial(_filled, weights=weights, part=part) for part in parts}


def _filled(module: nn.Module, *, weights: ReleasedWeights, part: str) -> Any:
    if not isinstance(module, PreTrainedModel):
        read_part(named_tensors(module), weights, part=part)
        return module
    module.tie_weights()
    tensors = named_tensors(module)
    size = token_embedding(module).num_embeddings
    growing = [name for name, tensor in tensors.items() if len(tensor) == size]
    prefix = module.base_model_prefix
    read_part(tensors, weights, part=part, base_prefix=prefix, growing=growing)
    return module


def _language(settings: dict[str, Any], *, vocab_size: int, fill: Fill | None) -> LanguageModel:
    if fill is None:
        return causal_lm(**settings, vocab_size=vocab_size)
    lora = settings.pop("lora", None)
    with no_init_weights():  # it takes minutes, and the weights are read next
        language = causal_lm(**settings, vocab_size=vocab_size)
    language = fill(language)
    return language if lora is None else add_lora(language, **lora)


def _as_built(module: nn.Module) -> Any:
    return module


def settings_of(
    spec: Mapping[str, Any], node: str, function: Callable[..., Any], *needed: str
) -> dict[str, Any]:
    """Return one node as arguments of `function`; InputError at a key that it does not take."""
    settings = spec.get(node)
    if not isinstance(settings, Mapping) or not settings.keys() >= set(needed):
        raise InputError(f"the node {node} lacks {', '.join(needed) or 'its keys'}: complete it.")
    known = set(signature(function).parameters) | set(needed)
    if unknown := sorted(map(str, settings.keys() - known)):
        raise InputError(
            f"the node {node} has the unknown key {unknown[0]!r}: it takes "
            f"{', '.join(sorted(known))}."
        )
    return dict(settings)


def _projector(spec: Mapping[str, Any], *, fill: Fill) -> Callable[[int, int], nn.Module]:
    kind = str(dict(spec.get("projector") or {}).get("kind"))
    if kind not in PROJECTORS:
        raise InputError(
            f"model.projector.kind is {kind!r}: choose one of {', '.join(PROJECTORS)}."
        )
    settings = settings_of(spec, "projector", PROJECTORS[kind], "kind")
    del settings["kind"]
    return lambda in_dim, out_dim: fill(PROJECTORS[kind](in_dim, out_dim, **settings))


def build_lvlm(
    *,
    vision: Tower,
    language: LanguageModel,
    projector: Callable[[int, int], nn.Module],
    tokenizer: PreTrainedTokenizerBase,
    image_token: str = IMAGE_TOKEN,
    scalar_head: bool = False,
    gpu_kernels: bool = True,
    ways: Ways | None = None,
) -> LVLM:
    """Join the parts and find out how the language model can be run.

    InputError where it cannot at all, or where the tokenizer does not fit.
    """
    vocabulary = tokenizer.get_vocab()
    if image_token not in vocabulary:
        raise InputError(f"tokenizer: it lacks the token {image_token}; add it when loading.")
    embedding = token_embedding(language)
    if len(tokenizer) > embedding.num_embeddings:
        raise InputError(
            f"model.language.vocab_size: the tokenizer has {len(tokenizer)} tokens, the language "
            f"model {embedding.num_embeddings}; give vocab_size={len(tokenizer)}."
        )
    ways = ways or ways_of(language, generates=not scalar_head)
    model = LVLM(
        vision=vision,
        projector=projector(vision.dim, embedding.embedding_dim),
        language=language,
        image_token_id=vocabulary[image_token],
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        scalar_head=new_scalar_head(output_head(language).in_features) if scalar_head else None,
        gpu_kernels=gpu_kernels,
    )
    model.ways = ways
    return model


def new_scalar_head(dim: int) -> nn.Linear:
    """Draw the weights as torch does and begin with a bias of zero, as LLaVA-RLHF does."""
    head = nn.Linear(dim, 1)
    nn.init.zeros_(head.bias)
    return head
