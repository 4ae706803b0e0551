"""One table of names, read in both directions: ours of a part -> those of a released LLaVA.

A tensor of ours may be several of theirs, one above the other: open_clip and timm keep queries,
keys and values as one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from dress.errors import InputError
from dress.modeling.hub.folder import ReleasedWeights

TOWER, PROJECTOR, LANGUAGE = "vision_tower", "multi_modal_projector", "language_model"
NEWLINE = "image_newline"  # LLaVA-OneVision's token behind a picture
QKV = ("q", "k", "v")
# {} is the number of a layer, {w} weight or bias, {qkv} each of q, k and v
CLIP = {
    "visual.conv1.weight": "embeddings.patch_embedding.weight",
    "visual.class_embedding": "embeddings.class_embedding",
    "visual.positional_embedding": "embeddings.position_embedding.weight",
    "visual.ln_pre.{w}": "pre_layrnorm.{w}",
    "visual.ln_post.{w}": "post_layernorm.{w}",
    "visual.transformer.resblocks.{}.ln_1.{w}": "encoder.layers.{}.layer_norm1.{w}",
    "visual.transformer.resblocks.{}.ln_2.{w}": "encoder.layers.{}.layer_norm2.{w}",
    "visual.transformer.resblocks.{}.attn.in_proj_{w}": (
        "encoder.layers.{}.self_attn.{qkv}_proj.{w}"
    ),
    "visual.transformer.resblocks.{}.attn.out_proj.{w}": "encoder.layers.{}.self_attn.out_proj.{w}",
    "visual.transformer.resblocks.{}.mlp.c_fc.{w}": "encoder.layers.{}.mlp.fc1.{w}",
    "visual.transformer.resblocks.{}.mlp.c_proj.{w}": "encoder.layers.{}.mlp.fc2.{w}",
}
SIGLIP = {
    "visual.trunk.patch_embed.proj.{w}": "embeddings.patch_embedding.{w}",
    "visual.trunk.pos_embed": "embeddings.position_embedding.weight",
    "visual.trunk.norm.{w}": "post_layernorm.{w}",
    "visual.trunk.blocks.{}.norm1.{w}": "encoder.layers.{}.layer_norm1.{w}",
    "visual.trunk.blocks.{}.norm2.{w}": "encoder.layers.{}.layer_norm2.{w}",
    "visual.trunk.blocks.{}.attn.qkv.{w}": "encoder.layers.{}.self_attn.{qkv}_proj.{w}",
    "visual.trunk.blocks.{}.attn.proj.{w}": "encoder.layers.{}.self_attn.out_proj.{w}",
    "visual.trunk.blocks.{}.mlp.fc1.{w}": "encoder.layers.{}.mlp.fc1.{w}",
    "visual.trunk.blocks.{}.mlp.fc2.{w}": "encoder.layers.{}.mlp.fc2.{w}",
}
# with the norm that stands before InternVL's; Idefics3's has one layer
MLP = {"0.{w}": "linear_1.{w}", "2.{w}": "linear_2.{w}", "norm.{w}": "layer_norm.{w}"}


def _compiled(table: Mapping[str, str], prefix: str) -> list[tuple[re.Pattern[str], str]]:
    rules = []
    for ours, theirs in table.items():
        pattern = re.escape(ours).replace(r"\{\}", r"(?P<n>\d+)")
        pattern = pattern.replace(r"\{w\}", "(?P<w>weight|bias)")
        rules.append((re.compile(pattern), f"{prefix}.{theirs}"))
    return rules


AS_IT_IS = [(re.compile(r"tower\.(?P<n>.+)"), f"{TOWER}.{{}}")]  # networks of transformers
RULES = {
    "vision": _compiled(CLIP, TOWER) + _compiled(SIGLIP, TOWER) + AS_IT_IS,
    "projector": [*_compiled(MLP, PROJECTOR), (re.compile("newline"), NEWLINE)],
}


def released_names(part: str, ours: str, *, base_prefix: str = "") -> tuple[str, ...] | None:
    """Name what a tensor of ours is called there; None where there is no such thing.

    `base_prefix` is what the language model calls its decoder, such as model or transformer.
    """
    if part == "language":
        head, _, rest = ours.partition(".")
        return (f"{LANGUAGE}.model.{rest}" if head == base_prefix else f"{LANGUAGE}.{ours}",)
    for pattern, theirs in RULES[part]:
        if match := pattern.fullmatch(ours):
            found = match.groupdict()
            name = theirs.replace("{}", found.get("n") or "").replace("{w}", found.get("w") or "")
            return tuple(name.replace("{qkv}", letter) for letter in QKV[: 3 if "{" in name else 1])
    return None


def read_part(
    tensors: Mapping[str, Tensor],
    weights: ReleasedWeights,
    *,
    part: str,
    base_prefix: str = "",
    growing: Collection[str] = (),
) -> None:
    """Fill a part's tensors; rows that the folder lacks, in `growing`, become the others' mean."""
    for ours, tensor in tensors.items():
        names = released_names(part, ours, base_prefix=base_prefix)
        assert names is not None, f"{part} has no {ours} that a released model could hold"
        found = [weights.read(name) for name in names]
        given = found[0] if len(found) == 1 else torch.cat(found)
        rows = len(given) if ours in growing and len(given) < len(tensor) else len(tensor)
        if given.numel() != tensor[:rows].numel():
            raise InputError(
                f"{weights.folder}: {names[0]} has shape {list(given.shape)}, which its "
                "config.json does not describe: fetch the model again."
            )
        with torch.no_grad():
            tensor[:rows].copy_(given.reshape(tensor[:rows].shape))
            if rows < len(tensor):
                tensor[rows:] = tensor[:rows].mean(dim=0)


def written_part(
    tensors: Mapping[str, Tensor], *, part: str, base_prefix: str = ""
) -> dict[str, tuple[Tensor, Sequence[int]]]:
    """Name each tensor as there, with its shape there; parts of one tensor are views of it."""
    written: dict[str, tuple[Tensor, Sequence[int]]] = {}
    for ours, tensor in tensors.items():
        names = released_names(part, ours, base_prefix=base_prefix)
        assert names is not None, f"{part} has no {ours} that a released model could hold"
        for name, piece in zip(names, tensor.chunk(len(names)), strict=True):
            flat = name.endswith("position_embedding.weight")
            written[name] = piece, piece.shape[-2:] if flat else piece.shape
    return written
