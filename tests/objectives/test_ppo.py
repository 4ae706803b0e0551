"""PPO's arithmetic by hand, against a padded loop, and by enumeration of a tabular policy."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from dress.errors import InputError
from dress.objectives.policy_losses import (
    Moments,
    clipped_loss,
    gae,
    kl_penalty,
    moments,
    token_rewards,
    value_losses,
    whiten,
)
from dress.objectives.ppo import PPO
from dress.objectives.rollouts import Rollouts
from dress.objectives.symbolic import SymbolicRewards, correctness

OWNER = torch.tensor([0, 0, 0, 1, 2, 2])  # three responses of 3, 1 and 2 tokens


def d(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def objective(**changes: float) -> PPO:
    rewards = SymbolicRewards(correct=0.0, length=0.0, no_end=0.0)
    return PPO(rollouts=Rollouts(), rewards=rewards, **changes)  # type: ignore[arg-type]


def test_the_penalty_by_hand() -> None:
    policy, reference = d(-1.0, -2.0), d(-1.5, -1.0)
    assert kl_penalty(policy, reference, form="k1").tolist() == [0.5, -1.0]
    assert kl_penalty(policy, reference, form="clamped").tolist() == [0.5, 0.0]
    by_hand = d(math.exp(-0.5) - 1 + 0.5, math.exp(1.0) - 1 - 1.0)
    torch.testing.assert_close(kl_penalty(policy, reference, form="k3"), by_hand)


def test_the_score_stands_at_the_last_token_of_each_response() -> None:
    found = token_rewards(d(*[-0.1] * 6), d(5.0, 7.0, -2.0), OWNER)
    torch.testing.assert_close(found, d(-0.1, -0.1, 4.9, 6.9, -0.1, -2.1))


def test_gae_by_hand() -> None:
    # one response of two tokens: delta_1 = 3 - 2 = 1, delta_0 = 1 + 0.5 * 2 - 1 = 1
    found = gae(d(1.0, 3.0), d(1.0, 2.0), torch.tensor([0, 0]), gamma=0.5, lam=0.8)
    assert found.tolist() == [1.0 + 0.5 * 0.8 * 1.0, 1.0]


def test_with_gamma_and_lambda_of_1_it_is_the_return_less_the_value() -> None:
    rewards, values = d(1, 2, 3, 4, 5, 6), d(1, 0, 2, 0, 3, 1)
    found = gae(rewards, values, OWNER, gamma=1.0, lam=1.0)
    assert found.tolist() == [6 - 1, 5 - 0, 3 - 2, 4 - 0, 11 - 3, 6 - 1]


def test_gae_equals_a_loop_over_each_response() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [4, 1, 7, 2]
    owner = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    rewards, values = torch.randn(2, 14, generator=generator, dtype=torch.float64)
    expected: list[float] = []
    for start, length in zip((0, 4, 5, 12), lengths, strict=True):
        r, v = (x[start : start + length].tolist() for x in (rewards, values))
        deltas = [r[t] + 0.9 * (v[t + 1] if t + 1 < length else 0.0) - v[t] for t in range(length)]
        for t in range(length):
            expected.append(sum((0.9 * 0.7) ** (k - t) * deltas[k] for k in range(t, length)))
    found = gae(rewards, values, owner, gamma=0.9, lam=0.7)
    torch.testing.assert_close(found, d(*expected))
    assert gae(d(), d(), torch.tensor([], dtype=torch.long), gamma=1.0, lam=1.0).shape == (0,)


def test_whitening_is_over_all_parts_together() -> None:
    parts = d(1.0, 5.0), d(3.0), d(7.0, -1.0, 3.0)
    over_all = sum((moments(part) for part in parts), Moments())
    whole = torch.cat([whiten(part, over_all) for part in parts])
    every = torch.cat(parts)
    torch.testing.assert_close(whole, (every - every.mean()) / every.std(unbiased=False))
    assert whiten(d(2.0, 2.0), moments(d(2.0, 2.0))).tolist() == [0.0, 0.0]


def test_the_clipped_loss_by_hand() -> None:
    old = d(0.0, 0.0, 0.0, 0.0)
    new = d(1.5, 1.5, 0.5, 0.5).log()
    found = clipped_loss(new, old, d(2.0, -2.0, 2.0, -2.0), clip=0.2)
    # a gain counts up to 1.2, a loss counts in full; a fall is the mirror image
    torch.testing.assert_close(found.loss, d(-2.4, 3.0, -1.0, 1.6))
    assert found.figures["clip_fraction"].item() == 2
    assert found.figures["ratio"].item() == pytest.approx(4.0)


def test_the_value_loss_by_hand() -> None:
    plain, clipped = value_losses(d(1.0, 0.1), d(0.0, 0.0), d(2.0, 2.0), clip=0.2)
    torch.testing.assert_close(plain, d(0.5, 0.5 * 1.9**2))
    torch.testing.assert_close(clipped, d(0.5 * 1.8**2, 0.5 * 1.9**2))


def test_symbolic_rewards_by_the_published_rules() -> None:
    assert correctness(" B. A dog.", "B") == 1 == correctness("The correct option is B.", "B")
    assert correctness("B", "B") == 0 == correctness("A. A dog.", "B")
    assert correctness("No, there is not.", "no") == 0.5
    assert correctness("Yes, a dog.", "no") == -0.5
    assert correctness("Nothing.", "no") == 0 == correctness("", "no")
    assert correctness("Yes.", "yes") == 0 == correctness("Yes.", None)


def tabular(logits: Tensor, response: tuple[int, ...]) -> Tensor:
    """Log-probabilities of a response of a policy with one table per position."""
    return torch.stack([logits[t].log_softmax(0)[token] for t, token in enumerate(response)])


def test_the_gradient_of_a_tabular_policy_is_the_exact_one() -> None:
    """At p = p_old, with every response weighted by its probability, it is the policy gradient."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    responses = list(itertools.product(range(3), repeat=2))
    scores = torch.randn(9, generator=generator, dtype=torch.float64)

    exact = logits.clone().requires_grad_()
    probs = torch.stack([tabular(exact, response).sum().exp() for response in responses])
    (-(probs * scores).sum()).backward()

    ours = logits.clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for response, score, prob in zip(responses, scores, probs.detach(), strict=True):
        log_probs = tabular(ours, response)
        owner = torch.zeros(2, dtype=torch.long)
        rewards = token_rewards(torch.zeros(2, dtype=torch.float64), score[None], owner)
        # any values: as a baseline they change no gradient
        advantages = gae(rewards, d(0.3, 0.0), owner, gamma=1.0, lam=1.0)
        advantages = advantages + d(0.3, 0.0) - d(0.3, 0.3)  # the same baseline at each position
        loss = clipped_loss(log_probs, log_probs.detach(), advantages, clip=0.2).loss
        total = total + prob * loss.sum()
    total.backward()
    torch.testing.assert_close(ours.grad, exact.grad)


def test_bad_settings_are_one_sentence() -> None:
    for name, value in {"kl": -1.0, "gamma": 1.5, "kl_form": "k2", "clip": -0.1}.items():
        with pytest.raises(InputError, match=rf"^{name} is '?{value}'?: (give|choose) "):
            objective(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="epochs is 0: give a whole number, 1 or more"):
        Rollouts(epochs=0)
    with pytest.raises(InputError, match="max_kl is 0: give a number above 0"):
        Rollouts(max_kl=0)
