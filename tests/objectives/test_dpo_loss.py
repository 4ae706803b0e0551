"""The losses equal numbers by hand and the formulas that TRL publishes, written out here again."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from dress.errors import InputError
from dress.objectives.dpo import DPO, dpo_loss, ipo_loss
from dress.types import TokenBatch

RATIO = torch.tensor([0.0, 2.0, -3.0, 40.0], dtype=torch.float64)


def trl(policy: Tensor, reference: Tensor, *, beta: float, smoothing: float, kind: str) -> Tensor:
    """TRL's `dpo_loss` (trl 0.7 to 0.24) for log-probabilities [chosen rejected, pair]."""
    logits = (policy[0] - policy[1]) - (reference[0] - reference[1])
    if kind == "ipo":
        return (logits - 1 / (2 * beta)) ** 2
    sigmoid = 1 / (1 + torch.exp(-beta * logits))
    return -torch.log(sigmoid) * (1 - smoothing) - torch.log(1 - sigmoid) * smoothing


def test_dpo_by_hand() -> None:
    losses = dpo_loss(RATIO, beta=0.5)
    by_hand = [math.log(2), math.log(1 + math.exp(-1)), 1.5 + math.log(1 + math.exp(-1.5)), 0.0]
    torch.testing.assert_close(losses, torch.tensor(by_hand).double(), rtol=1e-6, atol=3e-9)


def test_label_smoothing_by_hand() -> None:
    # of the ratio 2 at beta 0.5: 0.9 * log(1 + e^-1) + 0.1 * log(1 + e)
    (loss,) = dpo_loss(RATIO[1:2], beta=0.5, label_smoothing=0.1)
    by_hand = 0.9 * math.log(1 + math.exp(-1)) + 0.1 * math.log(1 + math.e)
    assert loss.item() == pytest.approx(by_hand, rel=1e-12)
    # the least loss is where the model believes as much: sigmoid(x) = 0.9
    best = torch.tensor([math.log(9.0) / 0.5], dtype=torch.float64, requires_grad=True)
    dpo_loss(best, beta=0.5, label_smoothing=0.1).sum().backward()
    assert best.grad is not None and abs(best.grad.item()) < 1e-12


def test_ipo_by_hand() -> None:
    # the target is 1 / (2 * 0.25) = 2
    losses = ipo_loss(RATIO[:3], beta=0.25)
    assert losses.tolist() == [4.0, 0.0, 25.0]


def test_the_gradient_of_dpo_is_the_published_one() -> None:
    """Equation in section 4 of arXiv 2305.18290: -beta * sigmoid(-beta * ratio)."""
    ratio = RATIO.clone().requires_grad_()
    dpo_loss(ratio, beta=0.3).sum().backward()
    torch.testing.assert_close(ratio.grad, -0.3 * torch.sigmoid(-0.3 * RATIO))


@pytest.mark.parametrize(("smoothing", "kind"), [(0.0, "sigmoid"), (0.2, "sigmoid"), (0.0, "ipo")])
def test_they_equal_trl(smoothing: float, kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    policy = torch.randn(2, 50, generator=generator, dtype=torch.float64) * 5 - 20
    reference = torch.randn(2, 50, generator=generator, dtype=torch.float64) * 5 - 20
    ratio = (policy[0] - reference[0]) - (policy[1] - reference[1])
    ours = (
        ipo_loss(ratio, beta=0.1)
        if kind == "ipo"
        else dpo_loss(ratio, beta=0.1, label_smoothing=smoothing)
    )
    expected = trl(policy, reference, beta=0.1, smoothing=smoothing, kind=kind)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


class Given:
    """A model that gives log-probabilities, and its batch."""

    def __init__(self, log_probs: Tensor) -> None:
        self.log_probs = log_probs

    def with_patches(self, batch: Any) -> Any:
        return batch

    def __call__(self, batch: Any, read: object) -> tuple[Tensor]:
        return (self.log_probs,)


def test_a_response_behind_a_corrupted_image_is_no_sample_of_the_reference() -> None:
    """The chosen response, the rejected one and the first again; q gives all tokens log 1."""
    drift = torch.tensor([0.1, 0.1, 0.2, -2.0, -2.0])
    batch = SimpleNamespace(
        target_seq=torch.tensor([0, 0, 1, 2, 2]),
        num_sequences=3,
        pairs=torch.tensor([[0, 1]]),
        image_pairs=torch.tensor([[0, 2]]),
    )
    model: Any = Given(drift)
    objective = DPO(image_term=1.0)
    objective._reference_log_probs = lambda _: torch.zeros(5)
    metrics = objective(model, cast(TokenBatch, batch)).metrics
    by_hand = sum(math.exp(x) - 1 - x for x in (0.1, 0.1, 0.2))
    assert float(metrics["kl"]) == pytest.approx(by_hand, rel=1e-5)
    assert float(metrics["kl_count"]) == 3


def test_mdpo_is_no_ipo() -> None:
    with pytest.raises(InputError, match=r"objective\.anchor are mDPO's, for variant=dpo"):
        DPO(variant="ipo", anchor=1.0)
