"""A step that leaves a worker process arrives as it was."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch

from dress.data.rejects import Reject
from dress.data.shards import ShardWriter
from dress.data.stream import GroupStream, Step
from dress.data.transfer import LARGE, packed
from tests.chat.tiny_chat import make_sample
from tests.data.test_stream import make_steps


def test_small_tensors_travel_as_arrays_and_come_back_equal(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        for number in range(4):
            writer.write(make_sample(number))
    (batch,) = make_steps(GroupStream(directory=tmp_path, seed=0)).make(0).batches
    batch = replace(batch, pixels=torch.randint(256, (6, 256, 256, 3), dtype=torch.uint8))
    assert batch.pixels.nbytes >= LARGE > batch.input_ids.nbytes
    sent = packed(batch)
    assert sent["pixels"] is batch.pixels and isinstance(sent["input_ids"], np.ndarray)
    step = Step((batch,), (Reject("no", key="k", where="w"),), 4, 2)
    arrived = pickle.loads(pickle.dumps(step))
    assert (arrived.groups, arrived.retries, str(arrived.rejects[0])) == (4, 2, "w, key k: no")
    for field in fields(batch):
        left, right = getattr(batch, field.name), getattr(arrived.batches[0], field.name)
        if isinstance(left, torch.Tensor):
            assert torch.equal(left, right) and left.dtype == right.dtype
            right += 1  # the main process may write into it
        else:
            assert left == right
