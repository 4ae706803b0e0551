"""What leaves a worker process arrives as it was, whatever was in its slot before."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from dress.data.collate import TreeCollator
from dress.data.stream import SentStep, Step
from dress.data.workers import LARGE, Receiver, Sender
from dress.types import TokenBatch

COLLATOR = TreeCollator(pad_token_id=0, image_token_id=9, num_image_tokens=1)


def make_batch(images: int, value: int) -> TokenBatch:
    """Return an otherwise empty batch whose images are 256 px wide, six of them being large."""
    pixels = torch.full((images, 256, 256, 3), value, dtype=torch.uint8)
    return replace(COLLATOR([])[0], pixels=pixels, group_ids=(f"group-{value}",))


def assert_equal(left: TokenBatch, right: TokenBatch) -> None:
    for field in fields(TokenBatch):
        ours, theirs = getattr(left, field.name), getattr(right, field.name)
        if isinstance(ours, torch.Tensor):
            assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype, field.name
        else:
            assert ours == theirs


def test_small_tensors_travel_as_arrays_and_large_ones_in_slots() -> None:
    batch, sender = make_batch(6, 3), Sender(worker=0)
    assert batch.pixels.nbytes >= LARGE > batch.input_ids.nbytes
    sent = sender.pack(batch)
    assert isinstance(sent["input_ids"], np.ndarray)
    assert len(pickle.dumps(sent | {"pixels": None})) < LARGE / 100
    arrived = Receiver().unpack(sent)
    assert_equal(arrived, batch)
    arrived.pixels.add_(1)  # what has arrived is the main process's own
    arrived.input_ids.add_(1)
    assert_equal(Receiver().unpack(Sender(worker=0).pack(batch)), batch)


def test_a_slot_is_used_again_when_its_content_was_copied() -> None:
    sender, receiver = Sender(worker=0), Receiver()
    for value in range(5):
        assert_equal(receiver.unpack(sender.pack(make_batch(6, value))), make_batch(6, value))
    assert len(sender.slots) == 1
    under_way = [sender.pack(make_batch(6, value)) for value in range(3)]
    assert len(sender.slots) == 3
    for value, sent in enumerate(under_way):
        assert_equal(receiver.unpack(sent), make_batch(6, value))


def test_a_larger_batch_replaces_a_slot() -> None:
    sender, receiver = Sender(worker=0), Receiver()
    for value, images in enumerate((6, 9, 7, 12, 1, 12)):
        batch = make_batch(images, value)
        assert_equal(receiver.unpack(sender.pack(batch)), batch)
        assert len(sender.slots) == 1


class Batches(IterableDataset[SentStep]):
    def __iter__(self) -> Iterator[SentStep]:
        worker = get_worker_info()
        sender = Sender(worker=worker.id)
        for value in range(worker.id, 12, worker.num_workers):
            packed = sender.pack(make_batch(6 + value % 4, value))
            yield SentStep((packed,), Step((), (), 1))


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_of_several_processes_are_not_mixed_up(workers: int) -> None:
    receiver, kept = Receiver(), []
    for sent in DataLoader(Batches(), batch_size=None, num_workers=workers):
        kept.append(receiver.unpack(sent.batches[0]))
    assert len(kept) == 12
    for value, batch in enumerate(kept):  # looked at when all slots were used again
        assert_equal(batch, make_batch(6 + value % 4, value))
