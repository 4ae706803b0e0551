"""Write a model as transformers has it: configuration, weights in shards, processor.

It keeps the type of the released model that it began from; one of own parts becomes a llava.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from open_clip.timm_model import TimmModel
from peft import PeftModel
from PIL import Image
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessor,
    GenerationConfig,
    LlavaConfig,
    LlavaImageProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from dress.errors import InputError
from dress.files import naming, write_text
from dress.modeling.checkpoint import part_tensors
from dress.modeling.four_bit import check_mergeable
from dress.modeling.head import output_head
from dress.modeling.hub.folder import (
    CONFIG,
    ReleasedWeights,
    own_name,
    read_json_of,
    released_folder,
)
from dress.modeling.hub.llava import LLAVA
from dress.modeling.hub.released import family_of, released_processor
from dress.modeling.hub.towers import CLIP, SIGLIP
from dress.modeling.hub.weight_names import TOWER, released_names, written_part
from dress.modeling.language import decoder_of, text_config, token_embedding
from dress.modeling.lvlm import LVLM
from dress.modeling.projector import EndedProjector
from dress.modeling.tower import Tower
from dress.modeling.vision import VisionTower

PARTS = ("vision", "projector", "language")
INSTEAD = "train with model/vision=clip_l14_336, which it holds"
ACTIVATIONS = {"QuickGELU": "quick_gelu", "GELU": "gelu", "GELUTanh": "gelu_pytorch_tanh"}


def write_model(
    model: LVLM, folder: Path, *, base: str | None, changed: set[str], shard_size: str
) -> None:
    """Write config.json, generation_config.json and the weights of a model with merged adapters.

    Parts that are not in `changed` keep the bytes that they have in the released model `base`, and
    so do weights that nothing here uses. A tensor to which rows were added is written anew.
    InputError where the weights rest in 4 bits.
    """
    check_mergeable(model.language)
    check_head(model)
    config = own_config(model) if base is None else base_config(model, base, changed)
    for node in (config, *(v for v in config.values() if isinstance(v, dict))):
        node.pop("_name_or_path", None)  # a folder of this machine
    write_text(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
    GenerationConfig(
        eos_token_id=model.eos_token_id,
        pad_token_id=model.pad_token_id,
        bos_token_id=text_config(model.language).bos_token_id,
    ).save_pretrained(folder)
    kind, weights = config["model_type"], _weights(model, config, base=base, changed=changed)
    tensors = {own_name(name, kind): tensor for name, tensor in weights}
    with naming(folder):
        save_torch_state_dict(tensors, folder, max_shard_size=shard_size, metadata={"format": "pt"})


def _weights(
    model: LVLM, config: Mapping[str, Any], *, base: str | None, changed: set[str]
) -> Iterator[tuple[str, Tensor]]:
    released = ReleasedWeights(released_folder(base)) if base is not None else None
    written: set[str] = set()
    for part in PARTS:
        for name, tensor in part_weights(model, part).items():
            written.add(name)
            keeps = released is not None and part not in changed and name in released
            kept = released.read(name) if released and keeps else tensor
            yield name, kept if kept.shape == tensor.shape else tensor  # rows may have been added
    if released is not None:
        yield from ((name, released.read(name)) for name in released if name not in written)
        return
    width = config["vision_config"]["hidden_size"]  # behind the layer that is read
    yield f"{TOWER}.post_layernorm.weight", torch.ones(width)
    yield f"{TOWER}.post_layernorm.bias", torch.zeros(width)


def part_weights(model: LVLM, part: str) -> dict[str, Tensor]:
    """Return a part's tensors under their released names and in their shapes there."""
    tensors = part_tensors(model, part)
    if part == "projector" and isinstance(model.projector, nn.Linear):
        return _one_layer_as_two(model.projector)
    prefix = _own(model).base_model_prefix
    made = {
        name: tensor.detach().reshape(tuple(shape)).clone() if part == "vision" else tensor.detach()
        for name, (tensor, shape) in written_part(tensors, part=part, base_prefix=prefix).items()
    }
    if part == "language" and _stores_ties(model):
        made["language_model.lm_head.weight"] = output_head(model.language).weight.detach().clone()
    return made


def _one_layer_as_two(projector: nn.Linear) -> dict[str, Tensor]:
    """Put the identity behind a linear projector, which changes no bit of what it gives."""
    weight, bias = projector.weight.detach(), projector.bias.detach()
    return {
        "multi_modal_projector.linear_1.weight": weight,
        "multi_modal_projector.linear_1.bias": bias,
        "multi_modal_projector.linear_2.weight": torch.eye(len(weight), dtype=weight.dtype),
        "multi_modal_projector.linear_2.bias": torch.zeros_like(bias),
    }


def base_config(model: LVLM, base: str, changed: set[str]) -> dict[str, Any]:
    """Return the released model's own configuration with what training has changed."""
    config = read_json_of(released_folder(base) / CONFIG)
    text = config.setdefault("text_config", {})
    text["vocab_size"] = token_embedding(model.language).num_embeddings
    if "language" in changed:
        config["dtype"] = str(next(_own(model).parameters()).dtype).removeprefix("torch.")
    return config


def own_config(model: LVLM) -> dict[str, Any]:
    """Describe a model of our own parts; InputError where the layout cannot hold one of them."""
    text = text_config(_own(model)).to_dict()
    text["vocab_size"] = token_embedding(model.language).num_embeddings
    text["tie_word_embeddings"] = text_config(_own(model)).tie_word_embeddings
    if _stores_ties(model):
        text["tie_word_embeddings"] = False
    act, bias = _projector(model.projector)
    tower = tower_config(model.vision)
    config = LlavaConfig(
        vision_config=tower,
        text_config=text,
        image_token_index=model.image_token_id,
        image_seq_length=model.vision.num_tokens,
        projector_hidden_act=act,
        multimodal_projector_bias=bias,
        vision_feature_layer=-1,  # layers that are not read are not written
        vision_feature_select_strategy="default" if tower["model_type"] == CLIP else "full",
        tie_word_embeddings=text["tie_word_embeddings"],
    )
    config.architectures = ["LlavaForConditionalGeneration"]
    dtype = str(next(_own(model).parameters()).dtype).removeprefix("torch.")
    return json.loads(config.to_json_string(use_diff=False)) | {"dtype": dtype}


def tower_config(vision: Tower) -> dict[str, Any]:
    """Read the shape of a tower from itself, as transformers names it."""
    assert isinstance(vision, VisionTower), "the tower of a released model of another type"
    if vision.normalize:
        raise InputError(
            "a LLaVA model reads a tower before its final norm, and this one is read behind it: "
            f"{INSTEAD}."
        )
    unknown = [n for n in vision.state_dict() if released_names("vision", n) is None]
    visual = vision.visual
    if unknown or vision.num_tokens != (vision.image_size // _patch(vision)) ** 2:
        held = unknown[0] if unknown else "other tokens than its patches"
        raise InputError(
            f"a LLaVA model holds a CLIP or SigLIP tower, and this one has {held}: {INSTEAD}."
        )
    if isinstance(visual, TimmModel):
        kind, blocks = SIGLIP, visual.trunk.blocks
        heads, width, act = blocks[0].attn.num_heads, blocks[0].mlp.fc1, blocks[0].mlp.act
        norm = blocks[0].norm1
    else:
        kind, blocks = CLIP, visual.transformer.resblocks
        heads, width, act = blocks[0].attn.num_heads, blocks[0].mlp.c_fc, blocks[0].mlp.gelu
        norm = blocks[0].ln_1
    tanh = getattr(act, "approximate", "none") == "tanh"
    return {
        "model_type": kind,
        "hidden_size": vision.dim,
        "intermediate_size": width.out_features,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": heads,
        "image_size": vision.image_size,
        "patch_size": _patch(vision),
        "hidden_act": "gelu_pytorch_tanh" if tanh else ACTIVATIONS[type(act).__name__],
        "layer_norm_eps": norm.eps,
        **({"vision_use_head": False} if kind == SIGLIP else {}),
    }


def _patch(vision: VisionTower) -> int:
    return vision.image_size // round(vision.num_tokens**0.5)


def _projector(projector: nn.Module) -> tuple[str, bool]:
    if isinstance(projector, nn.Linear):
        return "linear", True
    if isinstance(projector, EndedProjector):
        raise InputError("a LLaVA model has no token behind a picture: train without newline.")
    layers = [m for m in projector.modules() if isinstance(m, nn.Linear)]
    if len(layers) != 2 or layers[0].out_features != layers[1].out_features:
        raise InputError(
            "a LLaVA model holds a projector of two layers of the language model's width: train "
            "with model/projector=mlp or linear."
        )
    gelu = any(isinstance(module, nn.GELU) for module in projector.modules())
    return "gelu" if gelu else "linear", layers[0].bias is not None


def _own(model: LVLM) -> Any:
    language = model.language
    return language.get_base_model() if isinstance(language, PeftModel) else language


def _stores_ties(model: LVLM) -> bool:
    """Whether tied embeddings are written twice: the layout ties those called embed_tokens."""
    own = _own(model)
    named = any(n.endswith("embed_tokens.weight") for n, _ in own.named_parameters())
    return bool(text_config(own).tie_word_embeddings) and not named


@torch.no_grad()
def check_head(model: LVLM) -> None:
    """Refuse an LM whose class does more behind its decoder than one head without a bias."""
    own = _own(model)
    ids = torch.arange(4, device=token_embedding(own).weight.device)[None]
    states, head = decoder_of(own)(input_ids=ids).last_hidden_state, output_head(own)
    plain = getattr(head, "bias", None) is None
    if not plain or not torch.allclose(own(input_ids=ids).logits, head(states), atol=1e-4):
        raise InputError(
            f"a LLaVA model has one head without a bias, and {type(own).__name__} does more behind "
            "its last layer: train another language model."
        )


def processor_of(
    vision: Tower,
    tokenizer: PreTrainedTokenizerFast,
    templates: Mapping[str, str],
    *,
    base: str | None,
) -> Any:
    """Join what prepares pictures and texts; `templates` are chat templates, one called default.

    Of a released model of another type than llava it is that model's, with pictures as here.
    """
    if base is not None and family_of(base) is not LLAVA:
        processor = copy(released_processor(base))
        processor.tokenizer, processor.chat_template = tokenizer, dict(templates)
        processor.image_processor = vision.image_processor
        return processor
    assert isinstance(vision, VisionTower), "the tower of a released model of another type"
    is_clip = not isinstance(vision.visual, TimmModel)
    return LlavaProcessor(
        vision.image_processor or _image_processor(vision),
        tokenizer,
        patch_size=_patch(vision),
        vision_feature_select_strategy="default" if is_clip else "full",
        chat_template=dict(templates),
        num_additional_image_tokens=int(is_clip),
    )


def _image_processor(vision: VisionTower) -> Any:
    square = {"height": vision.image_size, "width": vision.image_size}
    common: dict[str, Any] = {
        "image_mean": list(vision.mean),
        "image_std": list(vision.std),
        "resample": Image.Resampling[vision.interpolation.upper()],
    }
    if vision.resize == "crop":
        shorter = {"shortest_edge": vision.image_size}
        return CLIPImageProcessor(size=shorter, crop_size=square, **common)
    common |= {"size": square, "do_center_crop": False}
    if vision.resize == "pad":
        return LlavaImageProcessor(do_pad=True, **common)
    return CLIPImageProcessor(**common)
