"""What a GPU would run, without one: devices, types, waits and the signatures of its kernels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from fake_gpu import FakeGPU
from modeling_helpers import (
    BOS,
    LLAMA,
    LORA,
    Sequences,
    image,
    random_pixels,
    tiny_lvlm,
    tree_batch,
    words,
)
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers.integrations.flex_attention import flex_attention_forward

from dress.modeling.footprint import gradients_of
from dress.modeling.gpu_attention import tree_block_mask
from dress.modeling.lvlm import LVLM
from dress.objectives.conditional_lm import ConditionalLM
from dress.objectives.dpo import DPO
from dress.objectives.functional import target_log_probs
from dress.objectives.grpo import GRPO
from dress.objectives.objective import Objective
from dress.objectives.policy_objective import Experience
from dress.objectives.ppo import PPO
from dress.objectives.reward import PairwiseReward
from dress.objectives.rollouts import Rollouts
from dress.objectives.self_distillation import SelfDistillation
from dress.objectives.symbolic import SymbolicRewards
from dress.types import LossOutput, TokenBatch
from lit_modules.muon import MuonAdamW
from lit_modules.parameters import parameter_groups

PROMPT = [*words(BOS), *image(0), *words(10, 11)]
ROWS: list[Sequences] = [
    [[*PROMPT, *words(12, 13, 14)], [*PROMPT, *words(15, 16, 17)]],
    [[*words(BOS, 20, 21, 22, 23, 24, 25), *words(26)], [*words(BOS, 20, 21, 22, 23, 24, 25, 27)]],
]
ROLLOUTS = Rollouts(samples=2)
NO_SYMBOLS = SymbolicRewards(correct=0.0, length=0.0, no_end=0.0)
IMAGES = {"nonzero": 1}  # where images stand among the tokens (LVLM.embed)


def batch_of(rows: list[Sequences] = ROWS) -> TokenBatch:
    batch = tree_batch(rows, pixels=random_pixels(1), supervised_from=7)
    return replace(batch, pairs=torch.tensor([[0, 1], [2, 3]]))


def model_of(gpu: FakeGPU, *, scalar_head: bool = False, lora: bool = False) -> LVLM:
    """As on a GPU: the LM in bfloat16, what trains beside it in float32."""
    model = tiny_lvlm(LLAMA | {"num_hidden_layers": 1}, lora=LORA if lora else None)
    model.language.bfloat16()
    if scalar_head:
        model.scalar_head = torch.nn.Linear(32, 1)
    model.gpu_kernels = False
    return gpu.model(model)


def through(objective: Objective, gpu: FakeGPU, **model: bool) -> LossOutput:
    lvlm = model_of(gpu, **model)
    objective.prepare(lvlm)
    batch = gpu.batch(batch_of())
    with gpu:
        return objective(lvlm, batch)


@pytest.fixture
def gpu() -> Iterator[FakeGPU]:
    made = FakeGPU()
    yield made
    assert not made.doubles


@pytest.mark.parametrize(
    ("objective", "waits"),
    [
        (ConditionalLM(), IMAGES),
        (DPO(), {"nonzero": 2}),  # the policy's and the reference's
        (DPO(variant="ipo", sft_weight=1.0), {"nonzero": 2}),
        (DPO(anchor=1.0), {"nonzero": 2}),
        (PairwiseReward(), IMAGES),
        (
            SelfDistillation(divergence="reverse_kl"),
            {"nonzero": 2, "_local_scalar_dense": 1, "repeat_interleave": 3, "bincount": 1},
        ),
        (
            SelfDistillation(top_k=3),
            {"nonzero": 3, "_local_scalar_dense": 1, "repeat_interleave": 3, "bincount": 1},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_objective_stays_on_the_gpu(
    gpu: FakeGPU, objective: Objective, waits: dict[str, int]
) -> None:
    rewarding = isinstance(objective, PairwiseReward)
    output = through(objective, gpu, scalar_head=rewarding, lora=isinstance(objective, DPO))
    assert output.loss_sum.device.type == "cuda" and output.loss_sum.dtype == torch.float32
    assert {tensor.device.type for tensor in output.metrics.values()} == {"cuda"}
    assert dict(gpu.waits) == waits


@pytest.mark.parametrize("kind", ["ppo", "grpo"])
def test_a_policy_stays_on_the_gpu(gpu: FakeGPU, kind: str) -> None:
    objective: Any = {"ppo": PPO, "grpo": GRPO}[kind](rollouts=ROLLOUTS, rewards=NO_SYMBOLS)
    policy, critic = model_of(gpu), model_of(gpu, scalar_head=True)
    batch = gpu.batch(batch_of())
    with gpu:
        (log_probs,) = policy(batch, target_log_probs)
        values = critic.values(batch)
        flat = gpu.tensor(torch.zeros(len(batch.target_seq)))
        experience = Experience(
            batch=batch,
            log_probs=flat,
            reference=flat,
            rewards=gpu.tensor(torch.zeros(batch.num_sequences)),
            values=flat,
        )
        before = gpu.waits.total()
        (part,) = objective.advantages([experience])
        once = gpu.waits.total() - before
        output = objective.loss(part, log_probs, values if kind == "ppo" else None)
        assert gpu.waits.total() == before + once, "no step of the optimizer waits"
    assert output.loss_sum.device.type == "cuda" and output.loss_sum.dtype == torch.float32
    assert once <= 24


@pytest.mark.parametrize("muon", [False, True], ids=["adamw", "muon"])
def test_an_optimizer_steps_on_the_gpu(gpu: FakeGPU, muon: bool) -> None:
    model = model_of(gpu)
    optimizer: torch.optim.Optimizer
    if muon:
        optimizer = MuonAdamW(parameter_groups(model), lr=1e-3, muon_scale=10.0)
    else:
        optimizer = torch.optim.AdamW(parameter_groups(model), lr=1e-3, fused=True)
    with gpu:
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
        assert gradients_of([model])
        optimizer.step()
    assert not gpu.waits


def test_kernels_run_where_the_mask_would(gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention as written, on tensors of a GPU; finding its blocks waits for nothing."""
    model = model_of(gpu)
    model.gpu_kernels, batch = True, gpu.batch(batch_of())
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *_: None)
    with torch.compiler.set_stance("force_eager"), torch.no_grad(), gpu:
        output = ConditionalLM()(model, batch)
    assert output.loss_sum.device.type == "cuda"
    assert dict(gpu.waits) == IMAGES


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda x: x + torch.ones(3), "cuda"),
        (lambda x: x.double(), "double"),
        (lambda x: x.cpu(), "wait"),
        (lambda x: (x > 0).any().item(), "whole"),
    ],
    ids=["device", "float64", "copy", "value"],
)
def test_what_is_wrong_is_found(spoil: Callable[[Tensor], Any], told: str) -> None:
    """The tests above can fail."""
    gpu = FakeGPU()
    with gpu:
        tensor = gpu.tensor(torch.zeros(3))
        try:
            spoil(tensor)
        except (RuntimeError, AssertionError) as error:
            assert told in str(error)
            return
    assert (gpu.doubles if told == "double" else gpu.waits).total() == 1


def test_flex_attention_takes_what_it_is_given() -> None:
    """By the signatures of the installed torch and transformers."""
    given = ("module", "query", "key", "value", "mask")
    inspect.signature(flex_attention_forward).bind(*given, scaling=1.0)
    inspect.signature(BlockMask.from_kv_blocks).bind(
        *("counts", "blocks", "whole counts", "whole blocks"),
        BLOCK_SIZE=128,
        mask_mod=len,
        seq_lengths=(1, 1),
    )
    taken = inspect.signature(flex_attention).parameters
    assert {"block_mask", "scale", "enable_gqa"} <= taken.keys()
    mask = tree_block_mask(torch.tensor([[3, 2, 3]]))
    assert mask.BLOCK_SIZE == (128, 128) and mask.seq_lengths == (3, 3)
