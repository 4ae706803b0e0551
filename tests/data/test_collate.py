from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dress.data.collate import TreeCollator
from dress.types import Encoded, EncodedGroup, TokenBatch

PAD, IMAGE, PATCHES = 0, 9, 2
Token = int | tuple[str, int]


def make_collator(**changes: Any) -> TreeCollator:
    arguments = {"pad_token_id": PAD, "image_token_id": IMAGE, "num_image_tokens": PATCHES}
    return TreeCollator(**(arguments | changes))


def pixels(name: str) -> torch.Tensor:
    return torch.full((2, 2, 3), ord(name), dtype=torch.uint8)


def sequence(ids: list[int], mask: list[bool], images: tuple[str, ...] = ()) -> Encoded:
    return Encoded(np.array(ids, dtype=np.int64), np.array(mask), images)


def group(name: str, *sequences: Encoded) -> EncodedGroup:
    images = dict.fromkeys(image for s in sequences for image in s.images)
    return EncodedGroup(name, sequences, {image: pixels(image) for image in images})


@st.composite
def encoded(draw: st.DrawFn) -> Encoded:
    parts = draw(st.lists(st.sampled_from([1, 2, "a", "b", "c"]), min_size=1, max_size=6))
    ids = [i for part in parts for i in ([IMAGE] * PATCHES if isinstance(part, str) else [part])]
    images = tuple(part for part in parts if isinstance(part, str))
    mask = [i != IMAGE and draw(st.booleans()) for i in ids]
    return sequence(ids, mask, images)


groups_of_sequences = st.lists(st.lists(encoded(), min_size=1, max_size=4), max_size=5)


def tokens_of(encoding: Encoded) -> list[Token]:
    patches = iter((image, p) for image in encoding.images for p in range(PATCHES))
    return [next(patches) if i == IMAGE else i for i in encoding.input_ids.tolist()]


def prefixes_of(encoding: Encoded) -> list[tuple[Token, ...]]:
    tokens = tokens_of(encoding)
    return [tuple(tokens[: n + 1]) for n in range(len(tokens))]


def read_back(batch: TokenBatch) -> dict[int, tuple[Token, ...]]:
    """Read each node's tokens from the root, going only by subtree_end, as attention does."""
    names = [chr(int(image[0, 0, 0])) for image in batch.pixels]
    rows, length = batch.input_ids.shape
    prefixes = {}
    for row in range(rows):
        tokens: list[Token] = []
        for j in range(length):
            slot = int(batch.image_slot[row, j])
            is_text = slot < 0
            assert is_text == (int(batch.input_ids[row, j]) != IMAGE)
            image = names[slot // PATCHES] if not is_text else ""
            tokens.append(int(batch.input_ids[row, j]) if is_text else (image, slot % PATCHES))
        for i in range(length):
            seen = [j for j in range(i + 1) if i < int(batch.subtree_end[row, j])]
            assert int(batch.position_ids[row, i]) == len(seen) - 1
            prefixes[row * length + i] = tuple(tokens[j] for j in seen)
    return prefixes


def check_against_sequences(
    batch: TokenBatch, groups: list[EncodedGroup], *, shared: bool
) -> Counter[tuple[Token, ...]]:
    """Compare a batch with the sequences it stands for; return the nodes used, by prefix."""
    prefixes = read_back(batch)
    by_id = {g.id: g for g in groups}
    number = Counter()
    used: dict[int, tuple[str, int]] = {}
    for s in range(batch.num_sequences):
        name = batch.group_ids[int(batch.sequence_group[s])]
        original = by_id[name].sequences[number[name]]
        number[name] += 1
        expected = prefixes_of(original)
        assert prefixes[int(batch.sequence_end[s])] == expected[-1]
        picked = batch.target_seq == s
        supervised = [n for n in np.flatnonzero(original.loss_mask).tolist() if n > 0]
        nodes = batch.target_node[picked].tolist()
        before = batch.logit_node[batch.target_logit[picked]].tolist()
        assert [prefixes[n] for n in nodes] == [expected[n] for n in supervised]
        assert [prefixes[n] for n in before] == [expected[n - 1] for n in supervised]
        owner = (name, 0 if shared else s)
        for node in nodes + before:
            assert used.setdefault(node, owner) == owner
    assert number == Counter({name: len(by_id[name].sequences) for name in batch.group_ids})
    assert len(set(batch.logit_node.tolist())) == len(batch.logit_node)
    assert set(batch.target_logit.tolist()) == set(range(len(batch.logit_node)))
    assert batch.target_ids.tolist() == [prefixes[n][-1] for n in batch.target_node.tolist()]
    return Counter(prefixes.values())


@pytest.mark.parametrize("row_tokens", [None, 16])
@pytest.mark.parametrize("rows_per_batch", [None, 2])
@pytest.mark.parametrize("share_prefixes", [True, False])
@given(sequences=groups_of_sequences)
def test_batches_stand_for_their_sequences(
    sequences: list[list[Encoded]],
    share_prefixes: bool,
    rows_per_batch: int | None,
    row_tokens: int | None,
) -> None:
    groups = [group(f"g{n}", *s) for n, s in enumerate(sequences)]
    collator = make_collator(
        share_prefixes=share_prefixes, rows_per_batch=rows_per_batch, row_tokens=row_tokens
    )
    batches = collator(groups)
    for batch in batches:
        check_against_sequences(batch, groups, shared=share_prefixes)
        used = {i for g in groups if g.id in batch.group_ids for s in g.sequences for i in s.images}
        names = [chr(int(image[0, 0, 0])) for image in batch.pixels]
        assert sorted(names) == sorted(used)  # each once, and only those of this batch
    assert sorted(i for b in batches for i in b.group_ids) == sorted(g.id for g in groups)


@given(sequences=groups_of_sequences.filter(bool))
def test_a_shared_tree_has_one_node_per_distinct_prefix(sequences: list[list[Encoded]]) -> None:
    groups = [group(f"g{n}", *s) for n, s in enumerate(sequences)]
    (batch,) = make_collator()(groups)
    assert batch.input_ids.shape[0] == len(groups)
    sizes = [len({p for s in g.sequences for p in prefixes_of(s)}) for g in groups]
    assert batch.input_ids.shape[1] == max(sizes)
    assert (batch.input_ids == PAD).sum() == sum(max(sizes) - size for size in sizes)


def test_worked_example() -> None:
    # Two answers to one question about image a: nodes I I 1 | 2 3 | 4, then one padding token.
    question = [IMAGE, IMAGE, 1]
    two = group(
        "two",
        sequence([*question, 4], [False] * 3 + [True], ("a",)),
        sequence([*question, 2, 3], [False] * 3 + [True, True], ("a",)),
    )
    one = group("one", sequence([1, *[IMAGE] * 4, 5, 6], [True] + [False] * 5 + [True], ("b", "a")))
    (batch,) = make_collator()([two, one])
    assert batch.input_ids.tolist() == [[9, 9, 1, 2, 3, 4, 0], [1, 9, 9, 9, 9, 5, 6]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 0], [0, 1, 2, 3, 4, 5, 6]]
    assert batch.subtree_end.tolist() == [[6, 6, 6, 5, 5, 6, 7], [7] * 7]
    assert batch.image_slot.tolist() == [[0, 1, -1, -1, -1, -1, -1], [-1, 2, 3, 0, 1, -1, -1]]
    assert batch.pixels[:, 0, 0, 0].tolist() == [ord("a"), ord("b")]
    assert batch.logit_node.tolist() == [2, 3, 12]
    assert batch.target_node.tolist() == [5, 3, 4, 13]  # the root of `one` is no target
    assert batch.target_logit.tolist() == [0, 0, 1, 2]
    assert batch.target_seq.tolist() == [0, 1, 1, 2]
    assert batch.sequence_end.tolist() == [5, 4, 13]
    assert batch.sequence_group.tolist() == [0, 0, 1]
    assert batch.group_ids == ("two", "one")


def test_a_gap_moves_the_answers_of_a_group_away_from_its_questions() -> None:
    def batches(**options: Any) -> tuple[TokenBatch, ...]:
        asked, told = [IMAGE, IMAGE, 1], [False] * 3
        groups = [
            group(
                name,
                sequence([*asked, 4], [*told, True], ("a",)),
                sequence([*asked, 2, 3, 5], [*told, True, False, True], ("a",)),
            )
            for name in "abcdefgh"
        ]
        return make_collator(**options)(groups)

    (plain,), (moved,) = batches(), batches(answer_gap=5)
    gaps = moved.position_ids - plain.position_ids
    assert (gaps[:, :3] == 0).all()  # image and question
    assert (gaps[:, 3:] == gaps[:, 3:4]).all()  # 2 3 5 | 4: as far for each answer of a group
    assert len(set(gaps[:, 3].tolist())) > 2 and gaps.min() >= 0 and gaps.max() <= 5
    assert torch.equal(moved.input_ids, plain.input_ids)
    (alone,) = batches(answer_gap=5, share_prefixes=False)
    assert alone.position_ids[0::2, 3].tolist() == alone.position_ids[1::2, 3].tolist()
    assert alone.position_ids[0::2, 3].tolist() == moved.position_ids[:, 3].tolist()


def test_first_fit_packing() -> None:
    sizes = [4, 5, 3, 9, 2]
    groups = [group(f"g{n}", sequence([n + 1] * n, [False] * n)) for n in sizes]
    (batch,) = make_collator(row_tokens=7)(groups)
    rows = [[i - 1 for i in dict.fromkeys(row.tolist()) if i != PAD] for row in batch.input_ids]
    assert rows == [[4, 3], [5, 2], [9]]
    assert batch.input_ids.shape == (3, 9)
    two, rest = make_collator(row_tokens=7, rows_per_batch=2)(groups)
    assert two.input_ids.shape == (2, 7) and rest.input_ids.shape == (1, 9)


def test_the_plain_way_keeps_a_group_in_one_batch() -> None:
    pair = [sequence([1, 2], [False, True]), sequence([1, 3], [False, True])]
    groups = [group("a", pair[0]), group("b", *pair), group("c", *pair, pair[0])]
    batches = make_collator(share_prefixes=False, rows_per_batch=2)(groups)
    assert [b.group_ids for b in batches] == [("a",), ("b",), ("c",)]
    assert [b.input_ids.shape[0] for b in batches] == [1, 2, 3]


def test_no_groups_give_a_batch_without_targets() -> None:
    (batch,) = make_collator()([])
    assert batch.input_ids.tolist() == [[PAD]] and batch.subtree_end.tolist() == [[1]]
    assert batch.target_node.shape == batch.logit_node.shape == batch.sequence_end.shape == (0,)
    assert batch.pixels.shape[0] == 0 and batch.num_sequences == 0


def test_equal_ids_in_one_step_stay_two_groups() -> None:
    one = group("a", sequence([1, 2], [False, True]))
    (batch,) = make_collator()([one, one])
    assert batch.group_ids == ("a", "a") and batch.sequence_group.tolist() == [0, 1]


def test_index_tensors_are_int64() -> None:
    (batch,) = make_collator()([group("a", sequence([1, 2], [False, True]))])
    for name, value in vars(batch).items():
        if isinstance(value, torch.Tensor) and name != "pixels":
            assert value.dtype == torch.int64, name


@pytest.mark.parametrize(
    "layout",
    [{}, {"row_tokens": 8}, {"rows_per_batch": 1}, {"share_prefixes": False}],
    ids=str,
)
def test_pairs_follow_their_sequences_into_any_layout(layout: dict[str, Any]) -> None:
    """Each sequence ends in a number of its own, by which it is found again."""
    numbers = {"a": [11, 12, 13], "b": [], "c": [21, 22]}
    pairs = {"a": ((2, 0), (1, 2)), "b": (), "c": ((0, 1),)}
    groups = [
        replace(
            group(name, *(sequence([1, 2, n], [False, True, True]) for n in numbers[name])),
            pairs=pairs[name],
        )
        for name in numbers
    ]
    found = []
    for batch in make_collator(**layout)(groups):
        assert batch.pairs.shape[1] == 2
        ends = batch.input_ids.flatten()[batch.sequence_end]
        found += [tuple(pair) for pair in ends[batch.pairs].tolist()]
    assert sorted(found) == [(12, 13), (13, 11), (21, 22)]


@given(groups_of_sequences, st.sampled_from([None, 20]), st.booleans())
def test_bounds_are_those_of_chains(
    groups: list[list[Encoded]], row_tokens: int | None, one_row: bool
) -> None:
    """Between two bounds of a batch without branches every token sees all before it, no other."""
    named = [group(str(n), *sequences) for n, sequences in enumerate(groups)]
    (batch,) = make_collator(row_tokens=row_tokens, one_row=one_row)(named)
    rows, length = batch.input_ids.shape
    flat = batch.subtree_end + torch.arange(rows)[:, None] * length
    bounds = batch.chain_bounds.tolist()
    depths = batch.position_ids.flatten().tolist()
    real = tokens_in(batch)
    follows = [depths[n] in (0, depths[n - 1] + 1) for n in range(1, rows * length)]
    assert (bounds == []) == (not all(follows[n - 1] for n in real if n))
    if bounds:
        assert bounds[0] == 0 and bounds[-1] == rows * length and bounds == sorted(set(bounds))
        for n in real:
            begin = max(bound for bound in bounds if bound <= n)
            assert depths[n] == n - begin
            assert flat.flatten()[n] == min(bound for bound in bounds if bound > n)


def tokens_in(batch: TokenBatch) -> list[int]:
    """The flat indices of what is no padding, all of which some sequence ends at or below."""
    rows, length = batch.input_ids.shape
    ends = batch.subtree_end + torch.arange(rows)[:, None] * length
    last = {
        n
        for e in batch.sequence_end.tolist()
        for n in range(rows * length)
        if n <= e < ends.flatten()[n]
    }
    return sorted(last)
