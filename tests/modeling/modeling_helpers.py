"""Tiny models and a token-tree builder that owes nothing to dress.data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from dress.modeling.language import causal_lm
from dress.modeling.lvlm import LVLM
from dress.modeling.projector import linear_projector
from dress.modeling.vision import VisionTower, open_clip_tower
from dress.types import TokenBatch

torch.set_num_threads(1)  # such small products only lose time to more threads

VOCAB_SIZE = 40
PAD, BOS, EOS, IMAGE = 0, 1, 2, 3
VISION = {
    "image_size": 16,
    "patch_size": 8,
    "width": 16,
    "layers": 2,
    "head_width": 8,
    "mlp_ratio": 2,
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.3,  # large enough that a wrong mask shows
}
GPT2 = {
    "model_type": "gpt2",
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": 0.3,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
LORA = {"r": 2, "alpha": 4, "dropout": 0.0, "target_modules": "all-linear"}

Token = tuple[int, int]  # token id, image slot or -1
Sequences = Sequence[Sequence[Token]]


def tiny_vision(layer: int = -1) -> VisionTower:
    return open_clip_tower(config=VISION, layer=layer)


def tiny_lvlm(
    config: Mapping[str, Any] = LLAMA,
    *,
    lora: Mapping[str, Any] | None = None,
    attention: str = "sdpa",
    seed: int = 0,
) -> LVLM:
    torch.manual_seed(seed)
    vision = tiny_vision()
    language = causal_lm(
        config=config, vocab_size=VOCAB_SIZE, random_init=True, attention=attention, lora=lora
    )
    return LVLM(
        vision=vision,
        projector=linear_projector(vision.dim, 32),
        language=language,
        image_token_id=IMAGE,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )


def randomize_adapter(model: LVLM, seed: int = 1) -> None:
    """Give the adapter an effect: peft starts it at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.language.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def random_pixels(images: int) -> UInt8[Tensor, "image 16 16 3"]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (images, 16, 16, 3), dtype=torch.uint8, generator=generator)


def image(slot: int) -> list[Token]:
    """Four placeholder tokens: a 16 px image has 2 x 2 patches of 8 px."""
    return [(IMAGE, 4 * slot + patch) for patch in range(4)]


def words(*ids: int) -> list[Token]:
    return [(token, -1) for token in ids]


def tree_batch(
    rows: Sequence[Sequences], *, pixels: Tensor, supervised_from: int, merge: bool = True
) -> TokenBatch:
    """Merge each row's sequences into tries, each in a depth-first order, and pad the rows."""
    flat: list[list[tuple[Token, int, int]]] = []  # token, depth, parent within the row
    paths: list[list[list[int]]] = []
    for sequences in rows:
        nodes: list[tuple[Token, int, int]] = []
        children: dict[tuple[int, Token], int] = {}
        row_paths = []
        for number, sequence in enumerate(sequences):
            parent, path = -1 if merge else -1 - number, []
            for depth, token in enumerate(sequence):
                if (parent, token) not in children:
                    children[(parent, token)] = len(nodes)
                    nodes.append((token, depth, parent))
                parent = children[(parent, token)]
                path.append(parent)
            row_paths.append(path)
        flat.append(nodes)
        paths.append(row_paths)
    width = max(len(nodes) for nodes in flat) + 2
    fields: dict[str, list[list[int]]] = {"ids": [], "position": [], "end": [], "slot": []}
    for nodes in flat:
        pad = width - len(nodes)
        fields["ids"].append([n[0][0] for n in nodes] + [PAD] * pad)
        fields["slot"].append([n[0][1] for n in nodes] + [-1] * pad)
        fields["position"].append([n[1] for n in nodes] + [0] * pad)
        fields["end"].append(_ends(nodes) + [len(nodes) + i + 1 for i in range(pad)])
    targets, predecessors, sequence_of, ends = [], [], [], []
    for row, row_paths in enumerate(paths):
        for path in row_paths:
            for before, node in pairwise(path[supervised_from - 1 :]):
                predecessors.append(row * width + before)
                targets.append(row * width + node)
                sequence_of.append(len(ends))
            ends.append(row * width + path[-1])
    logit_node = sorted(set(predecessors))
    return TokenBatch(
        input_ids=torch.tensor(fields["ids"]),
        position_ids=torch.tensor(fields["position"]),
        subtree_end=torch.tensor(fields["end"]),
        image_slot=torch.tensor(fields["slot"]),
        pixels=pixels,
        logit_node=torch.tensor(logit_node, dtype=torch.long),
        target_node=torch.tensor(targets, dtype=torch.long),
        target_logit=torch.tensor([logit_node.index(p) for p in predecessors], dtype=torch.long),
        target_seq=torch.tensor(sequence_of, dtype=torch.long),
        sequence_end=torch.tensor(ends),
        sequence_group=torch.arange(len(ends)),
        sequence_turn=torch.zeros(len(ends), dtype=torch.long),
        pairs=torch.zeros(0, 2, dtype=torch.long),
        image_pairs=torch.zeros(0, 2, dtype=torch.long),
        chain_bounds=torch.tensor(_chain_bounds(flat, width), dtype=torch.long),
        group_ids=tuple(str(i) for i in range(len(ends))),
    )


def _chain_bounds(rows: Sequence[Sequence[tuple[Token, int, int]]], width: int) -> list[int]:
    """Where trees and padding begin, and the end of all, if no token has two successors."""
    bounds = {len(rows) * width}
    for row, nodes in enumerate(rows):
        for index, (_, _, parent) in enumerate(nodes):
            if parent >= 0 and parent != index - 1:
                return []
            bounds |= {row * width + index} if parent < 0 else set()
        bounds.add(row * width + len(nodes))
    return sorted(bounds)


def _ends(nodes: Sequence[tuple[Token, int, int]]) -> list[int]:
    ends = [index + 1 for index in range(len(nodes))]
    for index in reversed(range(len(nodes))):
        parent = nodes[index][2]
        if parent >= 0:
            ends[parent] = max(ends[parent], ends[index])
    return ends


def tree_loss(model: LVLM, batch: TokenBatch) -> Float[Tensor, ""]:
    logits = model(batch)[batch.target_logit]
    return F.cross_entropy(logits, batch.target_ids, reduction="sum")


def sequence_logits(model: LVLM, sequence: Sequence[Token], pixels: Tensor) -> Tensor:
    """Run one unpadded sequence through the bare Hugging Face model."""
    ids = torch.tensor([[token for token, _ in sequence]])
    embeds = model.language.get_input_embeddings()(ids)
    if pixels.shape[0]:
        features = model.projector(model.vision(pixels)).flatten(0, 1)
        rows = [features[s] if s >= 0 else embeds[0, i] for i, (_, s) in enumerate(sequence)]
        embeds = torch.stack(rows)[None]
    return model.language(inputs_embeds=embeds, use_cache=False).logits[0]


def plain_loss(
    model: LVLM, sequences: Sequences, pixels: Tensor, *, supervised_from: int
) -> Float[Tensor, ""]:
    losses = []
    for sequence in sequences:
        logits = sequence_logits(model, sequence, pixels)[supervised_from - 1 : -1]
        targets = torch.tensor([token for token, _ in sequence[supervised_from:]])
        losses.append(F.cross_entropy(logits, targets, reduction="sum"))
    return torch.stack(losses).sum()


def gradients(model: LVLM) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
