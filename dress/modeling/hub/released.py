"""Released models of the families that are read here: their files, as the nodes of `model`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoConfig, AutoProcessor, PreTrainedTokenizerFast, ProcessorMixin

from dress.chat.released_template import INSTEAD, Message, check_pieces, pieces_of
from dress.chat.template import ChatTemplate
from dress.errors import InputError
from dress.modeling.hub.family import Family, choice
from dress.modeling.hub.folder import CONFIG, read_json_of, released_folder
from dress.modeling.hub.idefics3 import IDEFICS3, SMOLVLM
from dress.modeling.hub.internvl import INTERNVL
from dress.modeling.hub.llava import LLAVA
from dress.modeling.hub.onevision import ONEVISION
from dress.modeling.hub.towers import image_processor_of, pixels_of
from dress.modeling.hub.transformers_tower import SHUFFLE
from dress.modeling.language import shape_keys
from dress.modeling.tokenizer import IMAGE_TOKEN

FAMILIES = {family.kind: family for family in (LLAVA, ONEVISION, SMOLVLM, IDEFICS3, INTERNVL)}
THREE_AXES, SEEN = "its positions have three axes", "its image tokens see those behind them"
TILES = "it shows a picture as several, whose number depends on its shape"
NOT_READ = {  # types whose answers the splice alone does not give
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5"), THREE_AXES),
    **dict.fromkeys(("paligemma", "gemma3", "gemma3n", "gemma4"), SEEN),
    "llava_next": TILES,
}
PLAIN = (  # keys that describe no shape
    *("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"),
    *("id2label", "label2id"),
)


def described(name: str, *, one_tile: bool = False) -> dict[str, dict[str, Any]]:
    """Return what a released model's files say of vision, projector, language and tokenizer.

    `one_tile` shows every picture as one square, though its files would cut it into several.
    """
    family, config = family_of(name), released_config(name)
    nodes, processor = family.described(config, name), released_processor(name)
    nodes["vision"]["image_processor"] = _image_processor(
        processor, family, size=nodes["vision"]["image_size"], name=name, one_tile=one_tile
    )
    nodes["language"] = {"config": _text_shape(config)}
    _check_count(nodes["vision"]["config"], name)
    if processor.image_token != IMAGE_TOKEN:
        nodes["tokenizer"] = {"image_token": processor.image_token}
    return nodes


def family_of(name: str) -> Family:
    """Return the family of a model by its config.json; InputError names any other type."""
    path = released_folder(name) / CONFIG
    kind = read_json_of(path).get("model_type")
    if kind not in FAMILIES:
        why = f" ({NOT_READ[kind]})" if kind in NOT_READ else ""
        raise InputError(
            f"{path}: model_type is {kind!r}{why}, and only {', '.join(FAMILIES)} are read here: "
            "give a model of such a type."
        )
    return FAMILIES[kind]


@cache
def released_config(name: str) -> Any:  # whose parts have no declared types
    """Read config.json of a model of a family that is read here."""
    family_of(name)
    path = released_folder(name) / CONFIG
    try:
        return AutoConfig.from_pretrained(path.parent, trust_remote_code=False)
    except Exception as error:  # transformers raises nearly anything on damaged values
        raise _unreadable(path, error) from error


@cache
def released_processor(name: str) -> Any:
    """Load tokenizer, image processor and chat template of a released model."""
    path, family = released_folder(name), family_of(name)
    try:
        processor = AutoProcessor.from_pretrained(path, trust_remote_code=False)
    except ImportError as error:
        told = " ".join(str(error).split())
        raise InputError(
            f"{path}: its processor needs a package that is missing: {told}"
        ) from error
    except Exception as error:
        raise _unreadable(path, error) from error
    fits = isinstance(processor, family.processor)  # which mypy would take for its base class
    if not fits:
        raise InputError(f"{path}: its processor is a {type(processor).__name__}: give another.")
    if not isinstance(processor.tokenizer, PreTrainedTokenizerFast):
        raise InputError(
            f"{path}: its tokenizer has no fast version, which offsets need: give another."
        )
    token, wanted = processor.image_token, released_config(name).image_token_id
    if processor.image_token_id != wanted:
        raise InputError(
            f"{path}: its image token is {token!r} ({processor.image_token_id}), and config.json "
            f"says {wanted}: correct its files."
        )
    return processor


def _check_count(tower: dict[str, Any], name: str) -> None:
    """Compare how many image tokens the processor writes with how many the tower gives."""
    family, processor = family_of(name), released_processor(name)
    if family.told is None:
        return
    side = tower["image_size"] / tower["patch_size"] / tower.get(SHUFFLE, 1)
    given = side**2 + family.newlines
    written = processor.replace_image_token(family.told, 0).count(processor.image_token)
    if given != written:
        raise InputError(
            f"{released_folder(name)}: its processor writes {written} tokens for a picture, and "
            f"its tower gives {given:g}: correct its files."
        )


def shown_picture(name: str) -> str:
    """Return what the processor writes for one picture, with a single image token in it."""
    processor, told = released_processor(name), family_of(name).told
    token = str(processor.image_token)
    if told is None:
        return token
    written = str(processor.replace_image_token(told, 0))
    run = token * written.count(token)
    if not run or run not in written:
        raise InputError(
            f"{released_folder(name)}: its processor writes {written!r:.80} for a picture, which "
            "is no run of image tokens: correct its files."
        )
    return written.replace(run, token)


@cache
def released_prompt(name: str) -> dict[str, Any]:
    """Return the pieces of the chat template as keys of the node `template`."""
    processor = released_processor(name)
    templates = processor.chat_template
    if isinstance(templates, dict):  # of an export, whose other one holds a condition
        templates = templates.get("bare", templates.get("default"))
    if not templates:
        raise InputError(f"{released_folder(name)} has no chat template: {INSTEAD}.")
    token, shown = processor.image_token, shown_picture(name)

    def render(messages: Sequence[Message], opened: bool) -> str:
        told: str = processor.apply_chat_template(
            [{**message} for message in messages],
            chat_template=templates,
            add_generation_prompt=opened,
        )
        return told.replace(token, shown)

    tokenizer = processor.tokenizer
    try:
        pieces = pieces_of(
            render, end_token=tokenizer.eos_token, bos_token=tokenizer.bos_token, image=shown
        )
        if token != IMAGE_TOKEN:
            pieces["image_token"] = token
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


def _text_shape(config: Any) -> dict[str, Any]:
    text = config.text_config
    known = shape_keys(text.model_type) - {*PLAIN}
    plain = {key: value for key, value in text.to_diff_dict().items() if key in known}
    return plain | {
        "model_type": text.model_type,
        "vocab_size": text.vocab_size,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def _image_processor(
    processor: ProcessorMixin, family: Family, *, size: int, name: str, one_tile: bool
) -> dict[str, Any]:
    made: Any = processor.image_processor
    kind = type(made).__name__
    choice("image_processor_type", kind, family.image_processors, name)
    settings = {k: v for k, v in json.loads(made.to_json_string()).items() if v is not None}
    if family.views and not one_tile:
        raise InputError(
            f"{name}: its processor shows a single picture several times, and here each is one "
            "square: give model.one_tile=true to train with whole pictures."
        )
    for key, value in family.one_tile.items():
        if settings.get(key) != value and not one_tile:
            raise InputError(
                f"{name}: its image processor shows a picture as several ({key} is "
                f"{settings.get(key)}), and here each is one: give model.one_tile=true to train "
                f"with whole pictures, or a folder in whose files {key} is {value}."
            )
    settings |= {**family.one_tile, "image_processor_type": kind}
    shape = tuple(pixels_of(image_processor_of(settings), Image.new("RGB", (48, 32))).shape)
    scales = made.do_rescale and made.do_normalize and abs(made.rescale_factor * 255 - 1) < 1e-6
    if shape != (size, size, 3) or not scales:
        raise InputError(
            f"{name}: its image processor gives {shape} pixels, or does not scale them to 0 ... 1 "
            f"and normalise them, and the tower needs {size} x {size}: correct its files."
        )
    return settings
