"""Keys and values grown in place are those of the library's own layer."""

from __future__ import annotations

import torch
from transformers.cache_utils import DynamicLayer

from dress.modeling.decoding import ROOM, GrowingLayer


def test_it_holds_what_the_library_s_layer_holds() -> None:
    ours, theirs = GrowingLayer(), DynamicLayer()
    random = torch.Generator().manual_seed(0)
    buffers = set()

    def both(number: int, rows: int) -> None:
        keys, values = torch.rand(2, rows, 2, number, 3, generator=random)
        for held, expected in zip(
            ours.update(keys, values), theirs.update(keys, values), strict=True
        ):
            assert torch.equal(held, expected)
        buffers.add(ours.keys.data_ptr())

    both(5, rows=2)
    for _ in range(ROOM):
        both(1, rows=2)
    assert len(buffers) == 1  # nothing was copied
    both(1, rows=2)
    assert len(buffers) == 2
    for layer in (ours, theirs):
        layer.batch_repeat_interleave(3)
    both(1, rows=6)
    for layer in (ours, theirs):
        layer.crop(-4)
    both(2, rows=6)
    for layer in (ours, theirs):
        layer.reorder_cache(torch.tensor([5, 0, 1, 1, 2, 3]))
    both(ROOM + 9, rows=6)
