"""GRPO's arithmetic by hand, by enumeration of a tabular policy, and against TRL."""

from __future__ import annotations

import importlib.util
import itertools
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dress.errors import InputError
from dress.objectives.grpo import GRPO, group_advantages
from dress.objectives.policy_objective import Experience
from dress.objectives.rollouts import Rollouts
from dress.objectives.symbolic import SymbolicRewards
from dress.types import TokenBatch

NO_TRL = importlib.util.find_spec("trl") is None


def objective(**changes: Any) -> GRPO:
    return GRPO(rollouts=Rollouts(), rewards=SymbolicRewards(), **changes)


def batch_of(lengths: list[int], groups: list[int]) -> TokenBatch:
    """Only what an objective reads: whose the tokens are, and whose the responses."""
    empty = torch.zeros(0, dtype=torch.long)
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return TokenBatch(
        input_ids=empty[None],
        position_ids=empty[None],
        subtree_end=empty[None],
        image_slot=empty[None],
        pixels=torch.zeros(0, 3, 1, 1),
        logit_node=empty,
        target_node=empty,
        target_logit=empty,
        target_seq=owner,
        sequence_end=torch.zeros(len(lengths), dtype=torch.long),
        sequence_group=torch.tensor(groups),
        sequence_turn=torch.zeros(len(lengths), dtype=torch.long),
        pairs=empty.view(0, 2),
        image_pairs=empty.view(0, 2),
        chain_bounds=empty,
        group_ids=tuple(map(str, sorted(set(groups)))),
    )


def test_advantages_by_hand() -> None:
    rewards = torch.tensor([1.0, 2.0, 3.0, 5.0, 5.0], dtype=torch.float64)
    found = group_advantages(rewards, torch.tensor([0, 0, 0, 1, 1]))
    one = 1 / (1 + 1e-4)  # the standard deviation of 1, 2, 3 is 1
    torch.testing.assert_close(found, torch.tensor([-one, 0, one, 0, 0]).double())


def test_the_loss_by_hand() -> None:
    """Two responses of 1 and 2 tokens at p = p_old, the second once as likely under q."""
    log_probs = torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64)
    part = Experience(
        batch=batch_of([1, 2], [0, 0]),
        log_probs=log_probs,
        reference=log_probs + torch.tensor([0.0, 1.0, 0.0]),
        rewards=torch.tensor([1.0, 3.0], dtype=torch.float64),
    )
    (part,) = objective().advantages([part])
    output = objective(kl=0.5).loss(part, log_probs, None)
    advantage = 1 / (2**0.5 + 1e-4)
    kl = torch.e - 1 - 1
    by_hand = advantage + (-advantage + (0.5 * kl - 0) / 2)
    assert output.loss_sum.item() == pytest.approx(by_hand, rel=1e-6)
    assert output.count.item() == 2
    assert output.metrics["kl"].item() == pytest.approx(kl)


def experience(seed: int = 0) -> tuple[Experience, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths, groups = [3, 1, 4, 2, 5, 2], [0, 0, 0, 1, 1, 1]
    noise = torch.randn(3, sum(lengths), generator=generator, dtype=torch.float64)
    old = noise[0] * 0.3 - 2
    part = Experience(
        batch=batch_of(lengths, groups),
        log_probs=old,
        reference=old + 0.3 * noise[1],
        rewards=torch.randn(6, generator=generator, dtype=torch.float64),
    )
    (part,) = objective().advantages([part])
    return part, (old + 0.4 * noise[2]).requires_grad_()


def padded(values: Tensor, owner: Tensor) -> Tensor:
    rows = [values[owner == number] for number in range(int(owner.max()) + 1)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


@pytest.mark.skipif(NO_TRL, reason="trl is not installed")
def test_it_equals_trl() -> None:
    from trl.trainer.grpo_trainer import GRPOTrainer

    part, log_probs = experience()
    owner = part.batch.target_seq
    dense = padded(log_probs, owner)
    settings: defaultdict[str, Any] = defaultdict(list)
    trainer: Any = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (dense, torch.zeros_like(dense), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=0.04,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        loss_type="grpo",
        epsilon_low=0.2,
        epsilon_high=0.2,
        use_vllm=False,
        _entropy_bonus_enabled=False,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        accelerator=SimpleNamespace(
            gather=lambda x: x, reduce=lambda x, reduction: x, num_processes=1
        ),
        _metrics={"train": settings, "eval": settings},
    )
    assert part.advantages is not None
    first = [int((owner == n).nonzero()[0]) for n in range(6)]
    mask = padded(torch.ones_like(owner), owner)
    inputs = {
        "prompt_ids": mask[:, :1],
        "prompt_mask": mask[:, :1],
        "completion_ids": mask,
        "completion_mask": mask,
        "advantages": part.advantages[first],
        "old_per_token_logps": padded(part.log_probs, owner),
        "ref_per_token_logps": padded(part.reference, owner),
    }
    expected = GRPOTrainer._compute_loss(trainer, None, inputs)
    output = objective(kl=0.04, clip=0.2).loss(part, log_probs, None)
    torch.testing.assert_close(output.loss_sum / output.count, expected)


def test_any_cut_into_parts_adds_up() -> None:
    part, log_probs = experience()
    whole = objective().loss(part, log_probs, None)
    first = part.batch.target_seq < 3
    total = 0.0
    for own, lengths in ((first, [3, 1, 4]), (~first, [2, 5, 2])):
        assert part.advantages is not None
        piece = replace(
            part,
            batch=batch_of(lengths, [0, 0, 0]),
            log_probs=part.log_probs[own],
            reference=part.reference[own],
            advantages=part.advantages[own],
        )
        total += objective().loss(piece, log_probs[own], None).loss_sum.item()
    assert total == pytest.approx(whole.loss_sum.item(), rel=1e-12)


def test_the_gradient_of_a_tabular_policy_is_the_exact_one() -> None:
    """Over all groups of two responses of one token, each weighted by its probability."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(3, generator=generator, dtype=torch.float64)
    scores = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    probs = logits.softmax(0)
    exact = torch.zeros(3, dtype=torch.float64)
    ours = logits.clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for pair in itertools.product(range(3), repeat=2):
        weight = probs[pair[0]] * probs[pair[1]]
        rewards = scores[list(pair)]
        difference = (rewards[0] - rewards[1]).item()
        # the deviation of two numbers is their difference over the root of 2
        a = difference / 2 / (abs(difference) / 2**0.5 + 1e-4)
        for token, advantage in zip(pair, (a, -a), strict=True):
            # the gradient of log p(token) is the unit vector less the probabilities
            exact -= weight * advantage * (torch.eye(3).double()[token] - probs) / 2
        log_probs = ours.log_softmax(0)[list(pair)]
        part = Experience(
            batch=batch_of([1, 1], [0, 0]),
            log_probs=log_probs.detach(),
            reference=log_probs.detach(),
            rewards=rewards,
        )
        (part,) = objective().advantages([part])
        output = objective().loss(part, log_probs, None)
        total = total + weight * output.loss_sum / output.count
    total.backward()
    torch.testing.assert_close(ours.grad, exact)


def test_a_group_needs_two() -> None:
    with pytest.raises(InputError, match="2 or more"):
        GRPO(rollouts=Rollouts(samples=1), rewards=SymbolicRewards())
