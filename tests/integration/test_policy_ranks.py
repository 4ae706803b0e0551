"""PPO and GRPO on two processes learn what one process learns from the same responses."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from torch import Tensor

from dress.chat.prompts import PromptGroup, PromptGroups
from dress.feedback.experience import Drawn, draw
from dress.jobs.processes import join
from dress.objectives.symbolic import SymbolicRewards
from lit_modules.policy import PolicyModule
from tests.integration.policies import make_module, make_parts, prompts
from tests.lit.toys import ToyData, make_trainer, weights
from tests.processes import run_ranks

KINDS = ("ppo", "grpo")
ROLLOUTS = 2
FIGURES = ("ppo/reward", "ppo/kl", "ppo/entropy", "ppo/advantages_abs", "train/loss")


class DrawnByPrompt(PolicyModule):
    """Draw the same responses to a prompt whichever rank has it."""

    def draw(self, groups: Sequence[PromptGroup], *, number: int) -> list[Drawn]:
        settings = self.policy_objective.rollouts
        return [
            drawn
            for group in groups
            for drawn in draw(self.policy, [group], rollouts=settings, seed=seed_of(group, number))
        ]


def seed_of(group: PromptGroup, number: int) -> int:
    return 1000 * number + sum(map(ord, group.id))


def train(kind: str, *, rank: int, world: int) -> tuple[Tensor, dict[str, float]]:
    """Learn from every world-th prompt, first with all prompts, then with one on rank 0 alone."""
    torch.set_num_threads(1)
    parts = make_parts(kind, max_kl=1e6, rewards=SymbolicRewards(correct=0, length=-1, no_end=-1))
    for reader in (parts.policy, parts.critic):
        if reader is not None:
            reader.model.double()
    module = make_module(parts)
    module.__class__ = DrawnByPrompt
    module.build_optimizer = lambda groups: torch.optim.SGD(groups, lr=0.1)
    everything = prompts(parts.policy)
    shares = [everything[rank::world], everything[:1] if rank == 0 else []]
    several: dict[str, Any] = {"plugins": [TorchElasticEnvironment()], "strategy": "ddp"}
    trainer = make_trainer(devices=world, **(several if world > 1 else {}))
    trainer.fit(module, ToyData([(PromptGroups(tuple(share)),) for share in shares]))
    return weights(module), {name: trainer.callback_metrics[name].item() for name in FIGURES}


def one_rank(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    join(f"file://{folder / 'meeting'}")
    for kind in KINDS:
        trained, figures = train(kind, rank=rank, world=2)
        (folder / f"{kind}.{rank}").write_text(json.dumps([trained.tolist(), figures]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(Path(__file__), [str(folder)], world=2)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_equal_one(kind: str, folder: Path) -> None:
    expected, figures = train(kind, rank=0, world=1)
    before = weights(make_module(make_parts(kind)))
    assert (expected - before).abs().max() > 1e-4
    for rank in range(2):
        trained, found = json.loads((folder / f"{kind}.{rank}").read_text())
        torch.testing.assert_close(
            torch.tensor(trained, dtype=expected.dtype), expected, rtol=1e-9, atol=1e-11
        )
        assert found == pytest.approx(figures, rel=1e-9)


if __name__ == "__main__":
    one_rank(Path(sys.argv[1]))
