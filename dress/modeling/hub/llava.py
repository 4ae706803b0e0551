"""Models of transformers' type llava: what their files say, as the nodes of `model`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import (
    AutoConfig,
    AutoProcessor,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from dress.chat.released_template import INSTEAD, Message, check_pieces, pieces_of
from dress.chat.template import ChatTemplate
from dress.errors import InputError
from dress.modeling.hub.folder import CONFIG, read_json_of, released_folder
from dress.modeling.hub.towers import (
    ACTIVATIONS,
    CLIP,
    IMAGE_PROCESSORS,
    SIGLIP,
    SIZES,
    pixels_of,
)
from dress.modeling.language import shape_keys
from dress.modeling.tokenizer import IMAGE_TOKEN

ACTS = ("gelu", "linear")  # of the projector
NO_TREES = {  # types whose answers the splice alone does not give
    **dict.fromkeys(
        ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5"),
        "its positions have three axes",
    ),
    **dict.fromkeys(
        ("paligemma", "gemma3", "gemma3n", "gemma4"), "its image tokens see those behind them"
    ),
}
PLAIN = (  # keys that describe no shape
    *("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"),
    *("id2label", "label2id"),
)


def described(name: str) -> dict[str, dict[str, Any]]:
    """Return what a released model's files say of vision, projector and language."""
    config = released_config(name)
    tower, processor = config.vision_config, released_processor(name)
    return {
        "vision": {
            "config": _tower_shape(config, name),
            "image_size": tower.image_size,
            "layer": _layer(config, name),
            "final_norm": False,  # hidden states there are those before it
            "image_processor": _image_processor(processor, tower.image_size, name),
        },
        "projector": {
            "hidden_dim": config.text_config.hidden_size,
            "depth": 2,
            "activation": _choice("projector_hidden_act", config.projector_hidden_act, ACTS, name),
            "bias": config.multimodal_projector_bias,
        },
        "language": {"config": _text_shape(config)},
    }


@cache
def released_config(name: str) -> Any:  # LlavaConfig, whose parts have no declared types
    """Read config.json of a model of this type; InputError names any other type."""
    path = released_folder(name) / CONFIG
    kind = read_json_of(path).get("model_type")
    if kind != "llava":
        why = f" ({NO_TREES[kind]})" if kind in NO_TREES else ""
        raise InputError(
            f"{path}: model_type is {kind!r}{why}, and only llava is read here: give a model of "
            "that type."
        )
    try:
        config = AutoConfig.from_pretrained(path.parent, trust_remote_code=False)
    except Exception as error:  # transformers raises nearly anything on damaged values
        raise _unreadable(path, error) from error
    assert isinstance(config, LlavaConfig)
    return config


@cache
def released_processor(name: str) -> LlavaProcessor:
    """Load tokenizer, image processor and chat template of a released model."""
    path = released_folder(name)
    try:
        processor = AutoProcessor.from_pretrained(path, trust_remote_code=False)
    except Exception as error:
        raise _unreadable(path, error) from error
    if not isinstance(processor, LlavaProcessor):
        raise InputError(f"{path}: its processor is a {type(processor).__name__}: give another.")
    if not isinstance(processor.tokenizer, PreTrainedTokenizerFast):
        raise InputError(f"{path}: its tokenizer has no fast version, which offsets need.")
    token, wanted = processor.image_token, released_config(name).image_token_index
    if token != IMAGE_TOKEN or processor.image_token_id != wanted:
        raise InputError(
            f"{path}: its image token is {token!r} ({processor.image_token_id}; config.json says "
            f"{wanted}), and {IMAGE_TOKEN} is read here alone: correct its files."
        )
    return processor


@cache
def released_prompt(name: str) -> dict[str, Any]:
    """Return the pieces of the chat template as keys of the node `template`."""
    processor = released_processor(name)
    templates = processor.chat_template
    if isinstance(templates, dict):  # of an export, whose other one holds a condition
        templates = templates.get("bare", templates.get("default"))
    if not templates:
        raise InputError(f"{released_folder(name)} has no chat template: {INSTEAD}.")

    def render(messages: Sequence[Message], opened: bool) -> str:
        told: str = processor.apply_chat_template(
            [{**message} for message in messages],
            chat_template=templates,
            add_generation_prompt=opened,
        )
        return told

    tokenizer = processor.tokenizer
    try:
        pieces = pieces_of(
            render,
            end_token=tokenizer.eos_token,
            bos_token=tokenizer.bos_token,
            image=processor.image_token,
        )
        check_pieces(ChatTemplate(**pieces), render)
    except InputError as error:
        raise InputError(f"{released_folder(name)}: {error}") from error
    except Exception as error:  # a template is a program of others, which raises anything
        raise _unreadable(released_folder(name), error) from error
    return pieces


def _unreadable(path: Path, error: Exception) -> InputError:
    told = " ".join(str(error).split())
    return InputError(
        f"{path} is not read by transformers ({type(error).__name__}: {told:.150}): fetch the "
        "model again."
    )


def _tower_shape(config: Any, name: str) -> dict[str, Any]:
    tower = config.vision_config
    kind = _choice("vision_config.model_type", tower.model_type, (CLIP, SIGLIP), name)
    strategy = "default" if kind == CLIP else "full"  # a CLIP tower alone has a class token
    _choice(
        "vision_feature_select_strategy", config.vision_feature_select_strategy, (strategy,), name
    )
    act = _choice("vision_config.hidden_act", tower.hidden_act, tuple(ACTIVATIONS), name)
    sizes = {size: getattr(tower, size) for size in SIZES}
    return {"model_type": kind, "hidden_act": act, "layer_norm_eps": tower.layer_norm_eps, **sizes}


def _layer(config: Any, name: str) -> int:
    """Return the layer counted from the end, where -1 is the last."""
    layer, count = config.vision_feature_layer, config.vision_config.num_hidden_layers
    if isinstance(layer, int) and layer > 0:
        layer -= count + 1
    if not isinstance(layer, int) or not -count <= layer < 0:
        raise InputError(
            f"{name}: vision_feature_layer is {config.vision_feature_layer}, and one layer of the "
            f"tower's {count} is read here: give a model that takes one."
        )
    return layer


def _text_shape(config: Any) -> dict[str, Any]:
    text = config.text_config
    known = shape_keys(text.model_type) - {*PLAIN}
    plain = {key: value for key, value in text.to_diff_dict().items() if key in known}
    tied = config.tie_word_embeddings or text.tie_word_embeddings
    return plain | {
        "model_type": text.model_type,
        "vocab_size": text.vocab_size,
        "tie_word_embeddings": tied,
    }


def _image_processor(processor: LlavaProcessor, size: int, name: str) -> dict[str, Any]:
    made = processor.image_processor
    kind = type(made).__name__
    _choice("image_processor_type", kind, tuple(IMAGE_PROCESSORS), name)
    settings = {k: v for k, v in json.loads(made.to_json_string()).items() if v is not None}
    shape = tuple(pixels_of(made, Image.new("RGB", (48, 32))).shape)
    scales = made.do_rescale and made.do_normalize and abs(made.rescale_factor * 255 - 1) < 1e-6
    if shape != (size, size, 3) or not scales:
        raise InputError(
            f"{name}: its image processor gives {shape} pixels, or does not scale them to 0 ... 1 "
            f"and normalise them, and the tower needs {size} x {size}: correct its files."
        )
    return settings | {"image_processor_type": kind}


def _choice(key: str, value: Any, choices: tuple[str, ...], name: str) -> Any:
    if value not in choices:
        raise InputError(
            f"{name}: {key} is {value!r}, and only {' or '.join(choices)} is read here: give "
            "another model."
        )
    return value
