"""What a GPU would compute, on a CPU: masks, layouts, gradients. Kernels: tests marked gpu."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from modeling_helpers import LLAMA, LORA, gradients, tiny_lvlm, tree_batch, tree_loss, words
from test_lvlm import PIXELS, ROWS, SEQUENCES
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, create_mask

from dress.data.trees import build_tree
from dress.modeling import gpu_attention, tree_attention
from dress.modeling.gpu_attention import BLOCK, takes_chains, tree_block_mask, tree_mask_mod
from dress.modeling.lvlm import LVLM
from dress.modeling.tree_attention import attends_by_kernel, tree_mask
from dress.types import TokenBatch

HEADS = LLAMA | {"head_dim": 16, "num_key_value_heads": 2}  # flex wants 16 at least
NO_BOUNDS = torch.zeros(0, dtype=torch.long)


def rows_of_trees(seed: int, *, length: int) -> Tensor:
    """Two rows of random trees; what is behind them is padding."""
    rng = np.random.default_rng(seed)
    rows = np.tile(np.arange(1, length + 1), (2, 1))
    for row in rows:
        start = 0
        while start < length * 0.9:
            shared = rng.integers(0, 9, rng.integers(1, 150))
            keys = [
                np.concatenate([shared, rng.integers(9, 12, rng.integers(1, 90))])
                for _ in range(rng.integers(1, 5))
            ]
            ends = build_tree(keys).subtree_end[: length - start]
            row[start : start + len(ends)] = np.minimum(ends + start, length)
            start += len(ends)
    return torch.from_numpy(rows)


@pytest.mark.parametrize("length", [1, BLOCK, 700, 5 * BLOCK])
@pytest.mark.parametrize("seed", range(3))
def test_the_blocks_are_those_that_the_mask_itself_gives(length: int, seed: int) -> None:
    ends = rows_of_trees(seed, length=length)
    found = tree_block_mask(ends)
    expected = create_block_mask(found.mask_mod, 2, None, length, length, device="cpu")
    assert torch.equal(found.to_dense(), expected.to_dense())
    assert found.full_kv_num_blocks is not None and expected.full_kv_num_blocks is not None
    assert torch.equal(found.full_kv_num_blocks, expected.full_kv_num_blocks)
    for name in ("kv", "full_kv", "q", "full_q"):
        numbers, places = (getattr(found, f"{name}_{n}") for n in ("num_blocks", "indices"))
        for index in np.ndindex(*numbers.shape):
            count = numbers[index]
            wanted = getattr(expected, f"{name}_indices")[index][:count]
            assert torch.equal(places[index][:count], wanted), (name, index)
    assert torch.equal(
        create_mask(tree_mask_mod(ends), 2, 1, length, length, device="cpu"), tree_mask(ends)
    )


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take a CPU for a GPU; flex, which is compiled there, is run as written, gradients too."""
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setattr(tree_attention, "attends_in_blocks", lambda *_: False)
    monkeypatch.setattr(tree_attention, "attends_by_kernel", lambda *_: True)
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *_: None)
    with torch.compiler.set_stance("force_eager"):
        yield


def both(model: LVLM, batch: TokenBatch) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """The loss and gradients by the kernels and with the dense mask."""
    results = []
    for model.gpu_kernels in (True, False):
        model.zero_grad()
        loss = tree_loss(model, batch)
        loss.backward()
        results.append((loss.detach(), gradients(model)))
    return results


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("long", [False, True])
def test_flex_attention_reads_trees(
    lora: dict | None, kv_heads: int, long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    built = gpu_attention.tree_block_mask
    monkeypatch.setattr(gpu_attention, "tree_block_mask", lambda e: used.append(e) or built(e))
    prompt = words(*range(4, 24)) * 8
    rows = [[[*prompt, *words(25, n, 26) * 20] for n in range(27, 30)]] if long else ROWS
    batch = tree_batch(rows, pixels=PIXELS, supervised_from=7)
    assert len(batch.chain_bounds) == 0 and (batch.input_ids.shape[1] > 2 * BLOCK) == long
    found, expected = both(
        tiny_lvlm(HEADS | {"num_key_value_heads": kv_heads}, lora=lora).double(), batch
    )
    assert len(used) == 1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # the norms are float32


@pytest.mark.usefixtures("kernels")
def test_flex_attention_runs_under_autocast() -> None:
    """Rotary embeddings then leave queries and keys in another precision than the values."""
    model, batch = tiny_lvlm(HEADS), tree_batch(ROWS, pixels=PIXELS, supervised_from=7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found, _), (expected, _) = both(model, batch)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=0)


# the parameters of flash_attn_varlen_func in flash-attn 2.8.3.post2, read in its source
# (flash_attn/flash_attn_interface.py), for its wheels need CUDA
FLASH = (
    *("q", "k", "v", "cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k", "dropout_p"),
    *("softmax_scale", "causal", "window_size", "softcap", "alibi_slopes", "deterministic"),
    *("return_attn_probs", "block_table"),
)


def each_alone(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float,
    causal: bool,
) -> Tensor:
    """What flash_attn_varlen_func is documented to do, one sequence after the other."""
    assert causal and torch.equal(cu_seqlens_q, cu_seqlens_k) and cu_seqlens_q.dtype == torch.int32
    assert cu_seqlens_q[0] == 0 and cu_seqlens_q[-1] == len(query)
    assert max_seqlen_q == max_seqlen_k >= cu_seqlens_q.diff().max()
    repeats = query.shape[1] // key.shape[1]
    outputs = []
    for start, end in pairwise(cu_seqlens_q.tolist()):
        q, k, v = (t[start:end].transpose(0, 1) for t in (query, key, value))
        k, v = (t.repeat_interleave(repeats, dim=0) for t in (k, v))
        scores = q @ k.transpose(1, 2) * softmax_scale
        hidden = torch.ones(scores.shape[1:]).triu(1).bool()
        outputs.append((scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("rows", ["one each", "packed"])
def test_flash_attention_reads_chains(rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(gpu_attention, "takes_chains", lambda bounds, **_: len(bounds) > 0)
    monkeypatch.setattr(
        gpu_attention,
        "varlen_kernel",
        lambda: lambda *a, **k: calls.append(k) or each_alone(*a, **k),
    )
    packed = [SEQUENCES[:3], SEQUENCES[3:]] if rows == "packed" else [[s] for s in SEQUENCES]
    batch = tree_batch(packed, pixels=PIXELS, supervised_from=7, merge=False)
    found, expected = both(tiny_lvlm(HEADS).double(), batch)
    assert len(calls) == HEADS["num_hidden_layers"]
    assert all(set(call) <= set(FLASH[3:]) for call in calls)  # beside three without a name
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # the norms are float32


def test_flash_attention_is_for_chains_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds, half = torch.tensor([0, 3]), torch.bfloat16
    monkeypatch.setattr(gpu_attention, "find_spec", lambda _: None)
    assert not takes_chains(bounds, dtype=half)
    monkeypatch.setattr(gpu_attention, "find_spec", lambda name: name == "flash_attn" or None)
    assert takes_chains(bounds, dtype=half)
    assert not takes_chains(NO_BOUNDS, dtype=half)
    assert not takes_chains(bounds, dtype=torch.float32)
    with torch.autocast("cpu", dtype=half):
        assert takes_chains(bounds, dtype=torch.float32)


def test_kernels_are_for_gpus_and_plain_attention() -> None:
    language, gpu = tiny_lvlm().language, torch.device("cuda")
    assert attends_by_kernel(language, gpu, torch.float32)
    assert not attends_by_kernel(language, gpu, torch.float64)
    assert not attends_by_kernel(language, torch.device("cpu"), torch.float32)
    dropping = tiny_lvlm(LLAMA | {"attention_dropout": 0.1}).language
    assert not attends_by_kernel(dropping, gpu, torch.float32)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shared", [True, False])
def test_the_kernels_equal_the_dense_mask(shared: bool, dtype: torch.dtype) -> None:
    torch.set_float32_matmul_precision("highest")
    batch = tree_batch(
        ROWS if shared else [[s] for s in SEQUENCES], pixels=PIXELS, supervised_from=7
    )
    assert (len(batch.chain_bounds) == 0) == shared
    model = tiny_lvlm(HEADS).cuda()
    with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
        found, expected = both(model, batch.to("cuda"))
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(found[0], expected[0], rtol=tolerance, atol=0)
    for name, gradient in expected[1].items():
        error = (found[1][name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert error < 2 * tolerance, name
