"""The nouns of the project: what is stored (Sample), what is encoded, what a model is trained on.

Axes: row (packed sequences), seq (tokens of a row), image, patch, dim, vocab, target (supervised
tokens), node (distinct places in a token tree), sequence (one response with its whole context).
Masks have one polarity: True means the element takes part.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dress.records import (
    ASPECTS,
    RATINGS,
    Dialogue,
    Feedback,
    Judgement,
    Requires,
    Sample,
    Turn,
)

__all__ = [
    "ASPECTS",
    "RATINGS",
    "Dialogue",
    "Encoded",
    "EncodedGroup",
    "EncodedImagesBatch",
    "Feedback",
    "Judgement",
    "LossOutput",
    "Movable",
    "Requires",
    "Sample",
    "TargetMask",
    "TokenBatch",
    "Turn",
]


@dataclass(frozen=True)
class Encoded:
    """One tokenised sequence; image i is a run of placeholder tokens, `images[i]` its key.

    Keys are equal where the images are.
    """

    input_ids: np.ndarray  # int64 [seq]
    loss_mask: np.ndarray  # bool [seq]
    images: tuple[Hashable, ...]
    turn: int = 0  # of its dialogue, where only one turn carries loss
    dropped: int = 0  # turns of its dialogue that it leaves out, the first ones


@dataclass(frozen=True)
class EncodedGroup:
    """The sequences of one Sample and the pixels of its distinct images, by key."""

    id: str
    sequences: tuple[Encoded, ...]
    pixels: Mapping[Hashable, Tensor]  # uint8 [height, width, 3]
    pairs: tuple[tuple[int, int], ...] = ()  # chosen, rejected: indices into sequences
    # of each pair the chosen one and the same response to a corrupted image, or none at all
    image_pairs: tuple[tuple[int, int], ...] = ()


class Movable:
    """Lets Lightning move and pin a frozen batch of tensors."""

    def to(self, *args: Any, **kwargs: Any):
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self):
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function):
        moved = {
            f.name: function(value)
            for f in fields(self)  # type: ignore[arg-type]
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(frozen=True)
class TokenBatch(Movable):
    """Token trees packed into rows; padding is a tree of one token each.

    Token i of a row attends to j iff j <= i < subtree_end[j]. Node indices are flat, row * seq + j.
    """

    input_ids: Int[Tensor, "row seq"]
    position_ids: Int[Tensor, "row seq"]  # depth in the tree
    subtree_end: Int[Tensor, "row seq"]
    image_slot: Int[Tensor, "row seq"]  # index into flattened [image patch] features; -1: text
    pixels: UInt8[Tensor, "image height width 3"]  # each distinct image once
    logit_node: Int[Tensor, " node"]  # the distinct predecessors of supervised tokens
    target_node: Int[Tensor, " target"]  # one entry per supervised token of each sequence
    target_logit: Int[Tensor, " target"]  # index into logit_node of the token's predecessor
    target_seq: Int[Tensor, " target"]
    sequence_end: Int[Tensor, " sequence"]  # the node of each sequence's last token
    sequence_group: Int[Tensor, " sequence"]  # index into group_ids
    sequence_turn: Int[Tensor, " sequence"]  # Encoded.turn
    pairs: Int[Tensor, "pair 2"]  # the sequences chosen and rejected
    image_pairs: Int[Tensor, "image_pair 2"]  # as in EncodedGroup
    chain_bounds: Int[Tensor, " bound"]  # flat, of trees without a branch; else empty
    group_ids: tuple[str, ...]

    @property
    def target_ids(self) -> Int[Tensor, " target"]:
        return self.input_ids.flatten()[self.target_node]

    @property
    def usable(self) -> bool:
        """Whether there is anything to learn from."""
        return self.target_node.numel() > 0

    @property
    def num_sequences(self) -> int:
        return self.sequence_end.shape[0]


@dataclass(frozen=True)
class EncodedImagesBatch(TokenBatch):
    """A batch whose images a frozen tower has encoded, for several passes over it."""

    patches: Float[Tensor, "image patch dim"]  # of `pixels`, not projected


@dataclass(frozen=True)
class LossOutput:
    """The sum of a loss over `count` units, so that any split of a batch adds up.

    Metrics are sums over `count` too, or over their own where there is a `<name>_count`.
    """

    loss_sum: Float[Tensor, ""]
    count: Float[Tensor, ""]
    metrics: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)


TargetMask = Bool[Tensor, " target"]
