from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dress.chat.condition import Condition
from dress.chat.encoders import CritiqueEncoder
from dress.data.collate import TreeCollator
from dress.data.rejects import Rejects
from dress.data.shard_writer import ShardWriter, offsets_path
from dress.data.stream import GroupStream, StepLoader, StepStream, permutation
from dress.errors import InputError, Reject
from dress.types import TokenBatch
from tests.chat.tiny_chat import make_processor, make_sample

PROCESSOR = make_processor(max_length=500)
COUNT = 23


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("shards")
    with ShardWriter(directory, max_groups=5) as writer:
        for number in range(COUNT):
            writer.write(make_sample(number))
    return directory


def ids(stream: GroupStream, start: int, number: int) -> list[str]:
    groups = [group for _, group in islice(stream.read(start), number)]
    return [getattr(group, "id", "reject") for group in groups]


def make_steps(stream: GroupStream, **changes: Any) -> StepStream:
    arguments: dict[str, Any] = {
        "stream": stream,
        "encoder": CritiqueEncoder(processor=PROCESSOR, condition=Condition(dropout=0.5), seed=0),
        "collator": TreeCollator(
            pad_token_id=0,
            image_token_id=PROCESSOR.image_token_id,
            num_image_tokens=PROCESSOR.num_image_tokens,
        ),
        "groups_per_step": 4,
    }
    return StepStream(**(arguments | changes))


def group_ids(batches: tuple[TokenBatch, ...]) -> list[str]:
    return [name for batch in batches for name in batch.group_ids]


@pytest.mark.parametrize("window", [1, 4, 7, 23, 100])
def test_each_epoch_is_a_permutation(shards: Path, window: int) -> None:
    stream = GroupStream(directory=shards, seed=0, window=window)
    epochs = [ids(stream, epoch * COUNT, COUNT) for epoch in range(3)]
    assert all(len(set(epoch)) == COUNT == len(stream) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    positions = [position for position, _ in islice(stream.read(COUNT - 1), 3)]
    assert [(p.index, p.epoch) for p in positions] == [(22, 0), (23, 1), (24, 1)]


def test_order_is_a_pure_function_that_any_start_continues(shards: Path) -> None:
    stream = GroupStream(directory=shards, seed=5, window=4)
    whole = ids(stream, 0, 60)
    for start in (0, 1, 22, 23, 37):
        assert (
            ids(GroupStream(directory=shards, seed=5, window=4), start, 20)
            == (whole[start : start + 20])
        )
    assert ids(GroupStream(directory=shards, seed=6, window=4), 0, 60) != whole


def test_without_shuffling_the_order_is_as_written(shards: Path) -> None:
    stream = GroupStream(directory=shards, seed=0, shuffle=False)
    expected = [f"sample-{n % COUNT}" for n in range(30)]
    assert ids(stream, 0, 30) == expected


def test_permutation_is_the_same_everywhere() -> None:
    # Pinned: another order would make a resumed run repeat some groups and miss others.
    assert permutation(8, (0, 0, 1)).tolist() == [7, 6, 4, 5, 3, 1, 0, 2]
    assert sorted(permutation(1000, (1, 2, 3)).tolist()) == list(range(1000))


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_ranks_share_each_step_without_overlap(shards: Path, world_size: int) -> None:
    stream = GroupStream(directory=shards, seed=0)
    for step in (0, 3, 7):
        shares = [
            group_ids(make_steps(stream, rank=r, world_size=world_size).make(step).batches)
            for r in range(world_size)
        ]
        together = [share[k] for k in range(4) for share in shares if k < len(share)]
        assert together == ids(stream, step * 4, 4)


def test_an_empty_share_has_no_target(shards: Path) -> None:
    stream = GroupStream(directory=shards, seed=0)
    (batch,) = make_steps(stream, rank=5, world_size=6).make(0).batches
    assert batch.group_ids == () and batch.target_node.numel() == 0


def same(a: TokenBatch, b: TokenBatch) -> bool:
    return a.group_ids == b.group_ids and all(
        torch.equal(value, getattr(b, name))
        for name, value in vars(a).items()
        if isinstance(value, torch.Tensor)
    )


def load(stream: GroupStream, *, workers: int, start: int, number: int) -> list[TokenBatch]:
    loader = StepLoader(
        steps=make_steps(stream, start_step=start), rejects=Rejects(), num_workers=workers
    )
    return [batch for batches in islice(loader, number) for batch in batches]


def test_workers_and_resuming_change_nothing(shards: Path) -> None:
    stream = GroupStream(directory=shards, seed=0, window=7)
    alone = load(stream, workers=0, start=0, number=9)
    many = load(stream, workers=2, start=0, number=9)
    resumed = load(stream, workers=1, start=4, number=5)
    assert len(alone) == len(many) == 9
    assert all(map(same, alone, many)) and all(map(same, alone[4:], resumed))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stop_ends_the_pass_with_a_short_step(shards: Path, workers: int) -> None:
    stream = GroupStream(directory=shards, seed=0, shuffle=False)
    loader = StepLoader(
        steps=make_steps(stream, stop=len(stream)), rejects=Rejects(), num_workers=workers
    )
    steps = [group_ids(batches) for batches in loader]
    assert [len(step) for step in steps] == [4, 4, 4, 4, 4, 3]
    assert [name for step in steps for name in step] == [f"sample-{n}" for n in range(COUNT)]


@pytest.fixture()
def damaged(tmp_path: Path) -> Path:
    """Write three shards with one group in the second that cannot be read."""
    with ShardWriter(tmp_path, max_groups=4) as writer:
        for number in range(12):
            writer.write(make_sample(number))
    shard = tmp_path / "shard-000001.tar"
    data = bytearray(shard.read_bytes())
    data[int(np.load(offsets_path(shard))[2])] = 0xFF
    shard.write_bytes(data)
    return tmp_path


def test_a_damaged_group_leaves_a_hole(damaged: Path) -> None:
    stream = GroupStream(directory=damaged, seed=0, shuffle=False)
    assert ids(stream, 5, 3) == ["sample-5", "reject", "sample-7"]
    step = make_steps(stream).make(1)
    assert group_ids(step.batches) == ["sample-4", "sample-5", "sample-7"]
    assert step.groups == 4 and len(step.rejects) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_rejects_are_counted_here_whatever_the_workers(damaged: Path, workers: int) -> None:
    stream = GroupStream(directory=damaged, seed=0, shuffle=False)
    steps = make_steps(stream, stop=len(stream))
    rejects = Rejects(max_rejects=1)
    assert len(list(StepLoader(steps=steps, rejects=rejects, num_workers=workers))) == 3
    assert rejects.groups_seen == 12 and rejects.by_reason == {"damaged tar": 1}
    assert rejects.first is not None
    assert rejects.first.where == str(damaged / "shard-000001.tar")
    with pytest.raises(InputError) as error:
        list(StepLoader(steps=steps, rejects=Rejects(), num_workers=workers))
    assert "shard-000001.tar" in str(error.value) and "\n" not in str(error.value)


def test_what_an_encoder_rejects_names_file_and_key(shards: Path) -> None:
    short = CritiqueEncoder(processor=make_processor(max_length=10), condition=Condition(), seed=0)
    step = make_steps(GroupStream(directory=shards, seed=0, shuffle=False), encoder=short).make(0)
    assert [r.key for r in step.rejects] == [f"sample-{n}" for n in range(4)]
    assert all(isinstance(r, Reject) and r.reason == "too long" for r in step.rejects)
    assert step.rejects[0].where == str(shards / "shard-000000.tar")
    assert step.batches[0].target_node.numel() == 0


def test_an_epoch_without_a_token_to_learn_from_ends_the_run(shards: Path) -> None:
    short = CritiqueEncoder(processor=make_processor(max_length=10), condition=Condition(), seed=0)
    steps = make_steps(GroupStream(directory=shards, seed=0), encoder=short)
    seen = 0
    with pytest.raises(InputError, match="no group of a whole epoch"):
        for _ in StepLoader(steps=steps, rejects=Rejects(max_rejects=10**6)):
            seen += 1
    assert seen == 5  # the sixth step of four groups would be the last of 23


def test_wrong_settings_are_named(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="window"):
        GroupStream(directory=shards, seed=0, window=0)
    with pytest.raises(InputError, match="seed"):
        GroupStream(directory=shards, seed=-1)
    with pytest.raises(InputError, match="does not exist"):
        GroupStream(directory=tmp_path, seed=0)
    with pytest.raises(InputError, match="groups_per_step"):
        make_steps(GroupStream(directory=shards, seed=0), groups_per_step=0)
