"""Attention in blocks is attention under the dense mask, for values and gradients (float64)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from modeling_helpers import LLAMA, LORA, gradients, tiny_lvlm, tree_batch, tree_loss, words

from dress.data.trees import build_tree
from dress.modeling.block_attention import BlockAttention, plan, tree_blocks
from dress.modeling.tree_attention import attends_in_blocks, attention_on_trees, tree_mask


def ends_of(*lengths: tuple[int, ...], padding: int = 3) -> torch.Tensor:
    """Trees of a prefix and branches, which differ from their first token on, in one row."""
    fresh, parts, start = itertools.count(100), [], 0
    for prefix, *branches in lengths:
        shared = [next(fresh) for _ in range(prefix)]
        keys = [np.array(shared + [next(fresh) for _ in range(n)]) for n in branches or [0]]
        tree = build_tree(keys)
        parts.append(tree.subtree_end + start)
        start += len(tree)
    parts.append(np.arange(start, start + padding) + 1)
    return torch.from_numpy(np.concatenate(parts))[None]


CASES = {
    "one": ends_of((1,), padding=0),
    "two branches": ends_of((9, 7, 5)),
    "long chain": ends_of((200,)),
    "several trees": ends_of((30, 20, 11, 40), (5,), (90, 3, 70)),
    **{f"K = {k}": ends_of((17, *range(3, 3 + k))) for k in range(1, 9)},
}


def dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor):
    scores = (query @ key.transpose(1, 2)).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ value


@pytest.mark.parametrize("size", [4, 64])
@pytest.mark.parametrize("ends", CASES.values(), ids=CASES)
def test_blocks_equal_the_dense_mask(ends: torch.Tensor, size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (3, 2, ends.numel(), 4)
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
    inputs = [part.requires_grad_() for part in drawn.unbind(0)]
    weight = torch.randn(shape[1:], generator=generator, dtype=torch.float64)
    blocks = tree_blocks(ends, dtype=torch.float64, size=size)
    found = BlockAttention.apply(*inputs, blocks)
    expected = dense(*inputs, tree_mask(ends)[:, 0])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    got = torch.autograd.grad((found * weight).sum(), inputs)
    wanted = torch.autograd.grad((expected * weight).sum(), inputs)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ends", CASES.values(), ids=CASES)
def test_blocks_tile_the_queries(ends: torch.Tensor) -> None:
    blocks = tree_blocks(ends, dtype=torch.float32, size=16)
    assert [b.queries.start for b in blocks] == [0, *(b.queries.stop for b in blocks[:-1])]
    assert blocks[-1].queries.stop == ends.numel()
    assert all(b.queries.stop - b.queries.start <= 24 for b in blocks)


def test_a_branch_does_not_meet_the_keys_of_its_siblings() -> None:
    # a prefix of 40, then 20 and 20: the second branch's block has the keys of prefix and itself
    blocks = tree_blocks(ends_of((40, 20, 20), padding=0), dtype=torch.float32, size=20)
    last = blocks[-1]
    assert last.queries == slice(60, 80)
    assert last.keys == (slice(0, 40), slice(60, 80))


def test_the_last_layer_leaves_out_blocks_that_nothing_reads() -> None:
    language = tiny_lvlm().language
    ends = ends_of((40, 20, 20), padding=0)
    found = plan(ends, torch.tensor([45, 50]), language=language, dtype=torch.float32)
    assert found.last_modules == set(language.model.layers[1].modules())
    read = [range(b.queries.start, b.queries.stop) for b in found.last]
    assert read and all(45 in r or 50 in r for r in read)
    assert len(found.last) < len(found.blocks) or len(found.blocks) == 1


def test_attention_with_dropout_or_soft_caps_stays_dense() -> None:
    language = tiny_lvlm().language
    cpu = torch.device("cpu")
    assert attends_in_blocks(language, cpu)
    assert not attends_in_blocks(language, torch.device("meta"))
    for key in ("attention_dropout", "attn_logit_softcapping"):
        other = tiny_lvlm().language
        setattr(other.config, key, 0.5)
        assert not attends_in_blocks(other, cpu), key


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_grouped_queries_and_several_rows(lora: dict | None) -> None:
    """Rows side by side, keys shared by heads: as each sequence alone."""
    model = tiny_lvlm(LLAMA | {"num_key_value_heads": 2}, lora=lora)
    language = model.language.double().eval()
    ids = torch.randint(4, 40, (2, 11), generator=torch.Generator().manual_seed(0))
    embeds = language.get_input_embeddings()(ids)
    ends = torch.full((2, 11), 11)
    nodes = torch.arange(22)
    attention = attention_on_trees(ends, nodes, language=language, dtype=embeds.dtype)
    with attention.context():
        found = language(
            inputs_embeds=embeds,
            attention_mask=attention.mask,
            position_ids=torch.arange(11).expand(2, 11),
            use_cache=False,
        ).logits
    expected = language(input_ids=ids, use_cache=False).logits
    # Llama's RMS norm computes in float32 even in a float64 model
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_autocast_trains() -> None:
    model = tiny_lvlm(lora=LORA).train()
    none = torch.zeros(0, 3, 16, 16)
    rows = [words(1, *range(10, 20)), words(1, *range(10, 15), 30, 31)]
    batch = tree_batch([rows], pixels=none, supervised_from=4)
    exact = tree_loss(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = tree_loss(model, batch)
        half.backward()  # within, as Lightning's manual optimization does
    torch.testing.assert_close(half.float(), exact, rtol=3e-2, atol=0)
    assert all(g.isfinite().all() for g in gradients(model).values())
