from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dress.data.trees import Tree, build_tree

few_keys = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=6)


def arrays(sequences: list[list[int]]) -> list[np.ndarray]:
    return [np.array(sequence, dtype=np.int64) for sequence in sequences]


def same(a: Tree, b: Tree) -> bool:
    fields = ("keys", "depth", "parent", "subtree_end")
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in fields)


def test_worked_example() -> None:
    #   5 - 6 - 7        nodes: 5 at 0, 6 at 1, 7 at 2, 8 at 3, 9 at 4
    #     \ 8 - 9
    tree = build_tree(arrays([[5, 8, 9], [5, 6, 7], [5, 6]]))
    assert tree.keys.tolist() == [5, 6, 7, 8, 9]
    assert tree.depth.tolist() == [0, 1, 2, 1, 2]
    assert tree.parent.tolist() == [-1, 0, 1, 0, 3]
    assert tree.subtree_end.tolist() == [5, 3, 3, 5, 5]
    assert [path.tolist() for path in tree.nodes] == [[0, 3, 4], [0, 1, 2], [0, 1]]


def test_sequences_without_a_common_start_are_a_forest() -> None:
    tree = build_tree(arrays([[2, 1], [1, 1]]))
    assert tree.parent.tolist() == [-1, 0, -1, 2]
    assert tree.subtree_end.tolist() == [2, 2, 4, 4]


@given(few_keys)
def test_nodes_are_the_distinct_prefixes(sequences: list[list[int]]) -> None:
    tree = build_tree(arrays(sequences))
    prefix_of: dict[int, tuple[int, ...]] = {}
    for sequence, path in zip(sequences, tree.nodes, strict=True):
        assert len(path) == len(sequence)
        for depth, node in enumerate(path.tolist()):
            assert tree.keys[node] == sequence[depth]
            assert prefix_of.setdefault(node, tuple(sequence[: depth + 1])) == tuple(
                sequence[: depth + 1]
            )
    distinct = {tuple(s[: n + 1]) for s in sequences for n in range(len(s))}
    assert len(tree) == len(distinct) and set(prefix_of.values()) == distinct
    for node, prefix in prefix_of.items():
        assert tree.depth[node] == len(prefix) - 1
        parent = int(tree.parent[node])
        assert prefix[:-1] == (prefix_of[parent] if parent >= 0 else ())


@given(few_keys)
def test_subtree_end_says_who_is_an_ancestor(sequences: list[list[int]]) -> None:
    tree = build_tree(arrays(sequences))
    for i in range(len(tree)):
        ancestors, node = set(), i
        while node >= 0:
            ancestors.add(node)
            node = int(tree.parent[node])
        assert ancestors == {j for j in range(len(tree)) if j <= i < tree.subtree_end[j]}


@given(few_keys, st.randoms())
def test_order_and_repetition_of_the_input_change_no_node(sequences, random) -> None:
    shuffled = [*sequences, sequences[0]]
    random.shuffle(shuffled)
    assert same(build_tree(arrays(sequences)), build_tree(arrays(shuffled)))


def test_large_keys_sort_as_numbers() -> None:
    tree = build_tree(arrays([[1 << 40], [255], [256], [(1 << 40) + 1]]))
    assert tree.keys.tolist() == [255, 256, 1 << 40, (1 << 40) + 1]
