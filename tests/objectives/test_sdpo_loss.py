"""Self-distillation against closed forms, and on pairs of sequences of a batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dress.errors import InputError
from dress.objectives.self_distillation import (
    SelfDistillation,
    jensen_shannon,
    paired_targets,
    reverse_kl_surrogate,
)

VOCAB = 7


def distributions() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, VOCAB, dtype=torch.float64, generator=generator)
    return student.requires_grad_(), teacher.log_softmax(-1)


def test_the_surrogate_has_the_gradient_of_the_reverse_kl() -> None:
    """Every token in turn, weighted by its probability: the exact mean over what is sampled."""
    logits, teacher = distributions()
    p = logits.log_softmax(-1)
    expected = torch.autograd.grad((p.exp() * (p - teacher)).sum(), logits)[0]
    p = logits.log_softmax(-1)
    surrogate = torch.stack(
        [
            reverse_kl_surrogate(p[:, v], teacher[:, v], p[:, v].detach(), clip=2.0)
            for v in range(VOCAB)
        ],
        dim=-1,
    )
    found = torch.autograd.grad((p.exp().detach() * surrogate).sum(), logits)[0]
    torch.testing.assert_close(found, expected)


def test_the_ratio_is_clipped() -> None:
    log_probs = torch.tensor([-1.0, -1.0], requires_grad=True)
    teacher, sampled = torch.tensor([0.0, 0.0]), torch.tensor([-1.5, -3.0])
    loss = reverse_kl_surrogate(log_probs, teacher, sampled, clip=2.0)
    # ratios e^0.5 and e^2, of which the second is clipped, times an advantage of 1
    assert loss.tolist() == pytest.approx([-(2.718281828**0.5), -2.0])
    loss.sum().backward()
    assert log_probs.grad is not None and log_probs.grad[1] == 0 and log_probs.grad[0] < 0


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_jensen_shannon_over_all_tokens_is_the_closed_form(alpha: float) -> None:
    logits, teacher = distributions()
    p, q = logits.softmax(-1), teacher.exp()
    m = alpha * q + (1 - alpha) * p
    expected = (alpha * q * (q / m).log() + (1 - alpha) * p * (p / m).log()).sum(-1)
    found = jensen_shannon(logits.log_softmax(-1), teacher, alpha=alpha)
    # the token for the rest has a probability of one rounding step on either side
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)


def test_jensen_shannon_with_a_rest_is_that_of_the_coarser_distributions() -> None:
    logits, teacher = distributions()
    p, q = logits.softmax(-1), teacher.exp()
    coarse_p = torch.cat([p[:, :3], p[:, 3:].sum(-1, keepdim=True)], -1)
    coarse_q = torch.cat([q[:, :3], q[:, 3:].sum(-1, keepdim=True)], -1)
    m = (coarse_p + coarse_q) / 2
    expected = 0.5 * (coarse_q * (coarse_q / m).log() + coarse_p * (coarse_p / m).log()).sum(-1)
    found = jensen_shannon(p.log()[:, :3], teacher[:, :3], alpha=0.5)
    torch.testing.assert_close(found, expected)
    assert (jensen_shannon(teacher[:, :3], teacher[:, :3], alpha=0.5).abs() < 1e-12).all()


def test_students_meet_their_teachers_token_by_token() -> None:
    class Batch:
        target_seq = torch.tensor([1, 0, 0, 1, 2, 3])
        num_sequences = 4
        pairs = torch.tensor([[0, 1], [2, 3]])

    student, teacher = paired_targets(Batch())  # type: ignore[arg-type]
    assert student.tolist() == [1, 2, 4] and teacher.tolist() == [0, 3, 5]


def test_alpha_lies_between_the_two() -> None:
    with pytest.raises(InputError, match=r"objective.alpha is 1.0: give a number between 0 and 1"):
        SelfDistillation(alpha=1.0)
