"""Merge sequences that share prefixes into a trie, flattened depth-first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Tree:
    """Nodes in depth-first order; a group without a common first token has several roots.

    Node i lies on the path to or below node j iff j <= i < subtree_end[j].
    """

    keys: Int[np.ndarray, " node"]
    depth: Int[np.ndarray, " node"]
    parent: Int[np.ndarray, " node"]  # -1 for a root
    subtree_end: Int[np.ndarray, " node"]
    nodes: tuple[Int[np.ndarray, " _"], ...]  # the path of each input sequence

    def __len__(self) -> int:
        return len(self.keys)


def build_tree(keys: Sequence[Int[np.ndarray, " _"]]) -> Tree:
    """Merge sequences of non-negative keys; children lie in ascending order of their keys."""
    assert keys and all(len(k) for k in keys), "a tree needs sequences that are not empty"
    # Big-endian bytes compare like the integers, and a prefix sorts before what extends it.
    order = sorted(range(len(keys)), key=lambda k: keys[k].astype(">u8").tobytes())
    paths: list[Int[np.ndarray, " _"]] = [np.empty(0, np.int64)] * len(keys)
    shared = [0] * len(keys)
    previous, path, size = np.empty(0, np.int64), np.empty(0, np.int64), 0
    for k in order:
        shared[k] = common_prefix(previous, keys[k])
        new = len(keys[k]) - shared[k]
        path = np.concatenate([path[: shared[k]], np.arange(size, size + new)])
        paths[k], previous, size = path, keys[k], size + new
    return _flatten(keys, order, paths, shared, size)


def _flatten(
    keys: Sequence[Int[np.ndarray, " _"]],
    order: Sequence[int],
    paths: Sequence[Int[np.ndarray, " _"]],
    shared: Sequence[int],
    size: int,
) -> Tree:
    node_keys, depth, parent, subtree_end = np.empty((4, size), dtype=np.int64)
    end = 0
    for k in order:
        fresh, end = slice(end, end + len(keys[k]) - shared[k]), end + len(keys[k]) - shared[k]
        node_keys[fresh] = keys[k][shared[k] :]
        depth[fresh] = np.arange(shared[k], len(keys[k]))
        parent[fresh] = np.concatenate([[-1], paths[k]])[shared[k] : -1]
        subtree_end[paths[k]] = end  # a later sequence through the same node overwrites this
    return Tree(node_keys, depth, parent, subtree_end, tuple(paths))


def common_prefix(a: Int[np.ndarray, " seq"], b: Int[np.ndarray, " other"]) -> int:
    length = min(len(a), len(b))
    differing = np.flatnonzero(a[:length] != b[:length])
    return int(differing[0]) if differing.size else length
