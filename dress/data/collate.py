"""Encoded groups to packed batches of token trees."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from dress.data.trees import Tree, build_tree
from dress.settings import Positive, Whole, checked
from dress.types import Encoded, EncodedGroup, TokenBatch

_IMAGE_KEY = 1 << 40  # above every token id


@dataclass(frozen=True)
class _Piece:
    """What stays together in one row: the tree of some sequences of one group."""

    number: int  # of the group within the step
    group: EncodedGroup
    sequences: tuple[Encoded, ...]
    # key _IMAGE_KEY + i * num_image_tokens + p is patch p of images[i]
    images: tuple[Hashable, ...]
    tree: Tree


_Row = list[_Piece]


class TreeCollator:
    """Merge, pack and pad groups into one batch, or several of at most `rows_per_batch` rows.

    Without `row_tokens` each tree has a row of its own; with it trees are packed first-fit into
    rows of that many tokens, a longer tree alone. `share_prefixes=False` gives each sequence a row
    of its own, the plain way. A group is never split over batches. `one_row` puts the rows of a
    batch one behind the other, for attention that computes nothing between trees anyway: then
    nothing but the end of a batch is padding. `answer_gap` leaves up to so many positions free
    between each group's questions and answers, so that a model learns to look at the image and the
    question from any distance (randomised positions, arXiv 2305.16843): a condition will stand
    there later.
    """

    @checked
    def __init__(
        self,
        *,
        pad_token_id: int,
        image_token_id: int,
        num_image_tokens: int,
        share_prefixes: bool = True,
        rows_per_batch: Positive | None = None,
        row_tokens: Positive | None = None,
        pad_to_multiple: Positive = 1,
        one_row: bool = False,
        answer_gap: Whole = 0,
    ) -> None:
        self.answer_gap = answer_gap
        self.one_row = one_row
        self.pad_token_id = pad_token_id
        self.image_token_id = image_token_id
        self.num_image_tokens = num_image_tokens
        self.share_prefixes = share_prefixes
        self.rows_per_batch = rows_per_batch
        self.row_tokens = row_tokens
        self.pad_to_multiple = pad_to_multiple

    def __call__(self, groups: Sequence[EncodedGroup]) -> tuple[TokenBatch, ...]:
        """Collate one step; no groups at all give a batch of one padding token and no target."""
        blocks = [self._pieces(number, group) for number, group in enumerate(groups)]
        if not self.share_prefixes:
            units = [[[piece] for piece in block] for block in blocks]
        else:
            units = [[row] for row in self._pack([piece for block in blocks for piece in block])]
        return tuple(self._batch(rows) for rows in self._split(units))

    def _pieces(self, number: int, group: EncodedGroup) -> list[_Piece]:
        images = tuple(group.pixels)
        keys = [self._keys(sequence, images) for sequence in group.sequences]
        if self.share_prefixes and keys:
            return [_Piece(number, group, group.sequences, images, build_tree(keys))]
        return [
            _Piece(number, group, (sequence,), images, build_tree([key]))
            for sequence, key in zip(group.sequences, keys, strict=True)
        ]

    def _keys(self, sequence: Encoded, images: tuple[Hashable, ...]) -> Int[np.ndarray, " seq"]:
        """Give text its token id and each patch of each image a key of its own."""
        keys = sequence.input_ids.astype(np.int64)
        local = np.array([images.index(image) for image in sequence.images], dtype=np.int64)
        starts = _IMAGE_KEY + local[:, None] * self.num_image_tokens
        patches = (starts + np.arange(self.num_image_tokens)).reshape(-1)
        # a model may also sample the token itself: behind all images, and then it is one like any
        placeholder = np.flatnonzero(keys == self.image_token_id)[: len(patches)]
        assert len(patches) == len(placeholder), "an image is a run of num_image_tokens tokens"
        keys[placeholder] = patches
        return keys

    def _pack(self, pieces: Sequence[_Piece]) -> list[_Row]:
        if self.row_tokens is None:
            return [[piece] for piece in pieces]
        rows: list[_Row] = []
        free: list[int] = []
        for piece in pieces:
            size = len(piece.tree)
            row = next((r for r, room in enumerate(free) if size <= room), len(rows))
            if row == len(rows):
                rows.append([])
                free.append(self.row_tokens)
            rows[row].append(piece)
            free[row] -= size
        return rows

    def _split(self, units: Sequence[list[_Row]]) -> list[list[_Row]]:
        """Gather units, each the rows that stay together, up to `rows_per_batch` rows."""
        batches: list[list[_Row]] = [[]]
        for unit in units:
            is_full = len(batches[-1]) + len(unit) > (self.rows_per_batch or np.inf)
            if batches[-1] and is_full:
                batches.append([])
            batches[-1] += unit
        return batches

    def _batch(self, rows: Sequence[_Row]) -> TokenBatch:
        if self.one_row:
            rows = [[piece for row in rows for piece in row]]
        length = max([1, *(sum(len(piece.tree) for piece in row) for row in rows)])
        batch = _BatchBuilder(
            shape=(max(len(rows), 1), round_up(length, self.pad_to_multiple)),
            pad_token_id=self.pad_token_id,
            image_token_id=self.image_token_id,
            num_image_tokens=self.num_image_tokens,
        )
        for row, pieces in enumerate(rows):
            start = 0
            for piece in pieces:
                gap = random.Random(piece.group.id).randrange(self.answer_gap + 1)
                batch.place(piece, row=row, start=start, gap=gap)
                start += len(piece.tree)
        return batch.finish(pad_to_multiple=self.pad_to_multiple)


class _BatchBuilder:
    """Arrays of one TokenBatch that trees are written into, one after the other."""

    def __init__(
        self,
        *,
        shape: tuple[int, int],
        pad_token_id: int,
        image_token_id: int,
        num_image_tokens: int,
    ) -> None:
        self.image_token_id, self.num_image_tokens = image_token_id, num_image_tokens
        self.length = shape[1]
        self.input_ids = np.full(shape, pad_token_id, dtype=np.int64)
        self.position_ids = np.zeros(shape, dtype=np.int64)
        self.subtree_end = np.tile(np.arange(1, shape[1] + 1), (shape[0], 1))
        self.image_slot = np.full(shape, -1, dtype=np.int64)
        self.pixels: dict[Hashable, UInt8[Tensor, "height width 3"]] = {}
        self.target_nodes: list[Int[np.ndarray, " _"]] = []
        self.predecessors: list[Int[np.ndarray, " _"]] = []
        self.sequence_end: list[int] = []
        self.sequence_group: list[int] = []
        self.sequence_turn: list[int] = []
        self.pairs: list[tuple[int, int]] = []
        self.image_pairs: list[tuple[int, int]] = []
        self.group_ids: dict[int, str] = {}  # by number within the step
        self.bounds = set(range(0, shape[0] * shape[1] + 1, shape[1]))  # of rows and trees
        self.branches = False

    def place(self, piece: _Piece, *, row: int, start: int, gap: int) -> None:
        tree = piece.tree
        here = (row, slice(start, start + len(tree)))
        is_image = tree.keys >= _IMAGE_KEY
        self.input_ids[here] = np.where(is_image, self.image_token_id, tree.keys)
        self.position_ids[here] = tree.depth
        self.subtree_end[here] = tree.subtree_end + start
        is_root = tree.depth == 0
        self.branches |= bool((np.diff(tree.depth, prepend=-1)[~is_root] != 1).any())
        bounds = np.append(np.flatnonzero(is_root), len(tree)) + row * self.length + start
        self.bounds.update(bounds.tolist())
        self.image_slot[here][is_image] = self._slots(piece, tree.keys[is_image] - _IMAGE_KEY)
        if piece.number not in self.group_ids:  # all of its sequences follow one another
            self.group_ids[piece.number] = piece.group.id
            first = len(self.sequence_end)
            self.pairs += [(first + c, first + r) for c, r in piece.group.pairs]
            self.image_pairs += [(first + c, first + r) for c, r in piece.group.image_pairs]
        group = list(self.group_ids).index(piece.number)
        for sequence, path in zip(piece.sequences, tree.nodes, strict=True):
            nodes = path + row * self.length + start
            answered = int(sequence.loss_mask.argmax())
            self.position_ids[row, path[answered:] + start] = np.arange(answered, len(path)) + gap
            supervised = np.flatnonzero(sequence.loss_mask[1:]) + 1  # a root is no target
            self.target_nodes.append(nodes[supervised])
            self.predecessors.append(nodes[supervised - 1])
            self.sequence_end.append(int(nodes[-1]))
            self.sequence_group.append(group)
            self.sequence_turn.append(sequence.turn)

    def _slots(
        self, piece: _Piece, patches: Int[np.ndarray, " patch"]
    ) -> Int[np.ndarray, " patch"]:
        """Map patches numbered within the group to the images of the batch."""
        local, patch = np.divmod(patches, self.num_image_tokens)
        image_of = np.full(len(piece.images), -1, dtype=np.int64)
        for index in np.unique(local):
            image = piece.images[index]
            self.pixels.setdefault(image, piece.group.pixels[image])
            image_of[index] = list(self.pixels).index(image)
        return image_of[local] * self.num_image_tokens + patch

    def finish(self, *, pad_to_multiple: int) -> TokenBatch:
        counts = [len(nodes) for nodes in self.target_nodes]
        predecessors = np.concatenate([*self.predecessors, np.empty(0, np.int64)])
        logit_node, target_logit = np.unique(predecessors, return_inverse=True)
        spare = round_up(len(logit_node), pad_to_multiple) - len(logit_node)
        logit_node = np.concatenate([logit_node, np.zeros(spare, np.int64)])  # read by no target
        target_node = np.concatenate([*self.target_nodes, np.empty(0, np.int64)])
        return TokenBatch(
            input_ids=torch.from_numpy(self.input_ids),
            position_ids=torch.from_numpy(self.position_ids),
            subtree_end=torch.from_numpy(self.subtree_end),
            image_slot=torch.from_numpy(self.image_slot),
            pixels=stacked_images(list(self.pixels.values())),
            logit_node=torch.from_numpy(logit_node),
            target_node=torch.from_numpy(target_node),
            target_logit=torch.from_numpy(target_logit.astype(np.int64)),
            target_seq=torch.from_numpy(np.repeat(np.arange(len(counts)), counts)),
            sequence_end=torch.tensor(self.sequence_end, dtype=torch.int64),
            sequence_group=torch.tensor(self.sequence_group, dtype=torch.int64),
            sequence_turn=torch.tensor(self.sequence_turn, dtype=torch.int64),
            pairs=torch.tensor(self.pairs, dtype=torch.int64).view(-1, 2),
            image_pairs=torch.tensor(self.image_pairs, dtype=torch.int64).view(-1, 2),
            chain_bounds=torch.tensor(
                [] if self.branches else sorted(self.bounds), dtype=torch.int64
            ),
            group_ids=tuple(self.group_ids.values()),
        )


def stacked_images(
    pixels: Sequence[UInt8[Tensor, "height width 3"]],
) -> UInt8[Tensor, "image height width 3"]:
    """Stack images, of which there may be none."""
    return torch.stack(list(pixels)) if pixels else torch.zeros(0, 1, 1, 3, dtype=torch.uint8)


def round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
