"""PPO and GRPO on several processes learn what one process learns from the same responses."""

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
from torch.distributed.tensor import DTensor

from dress.chat.prompts import PromptGroup, PromptGroups
from dress.feedback.experience import Drawn, draw
from dress.feedback.reward_scorer import RewardScorer
from dress.jobs.processes import join
from dress.modeling.lvlm import LVLM
from dress.modeling.sharding import shard
from dress.objectives.symbolic import SymbolicRewards
from lit_modules.policy import PolicyModule
from lit_modules.sharded import ShardedStrategy
from tests.integration.policies import assistant, make_module, make_parts, prompts
from tests.integration.small import make_collator
from tests.lit.toys import ToyData, make_trainer
from tests.processes import run_ranks

KINDS = ("ppo", "grpo")
FIGURES = ("ppo/reward", "ppo/kl", "ppo/entropy", "ppo/advantages_abs", "train/loss")
Trained = tuple[Tensor, dict[str, float]]


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


def train(kind: str, *, rank: int, world: int, strategy: str, dtype: torch.dtype) -> Trained:
    """Learn from every world-th prompt, first with all prompts, then with one on rank 0 alone.

    That is eight steps of the optimizer, and a validation.
    """
    torch.set_num_threads(1)

    def prepare(model: LVLM) -> None:
        model.to(dtype)
        if strategy == "fsdp":
            shard(model, torch.device("cpu"))

    judge = assistant(scalar_head=True, seed=2)
    judge.model.requires_grad_(False)
    prepare(judge.model)
    module = make_module(
        make_parts(
            kind,
            max_kl=1e6,
            rewards=SymbolicRewards(correct=0, length=-1, no_end=-1),
            judge=RewardScorer(assistant=judge, collator=make_collator(judge), facts=False),
            groups_per_batch=1,
            prepare=prepare,
        )
    )
    module.__class__ = DrawnByPrompt
    module.build_optimizer = lambda groups: torch.optim.SGD(groups, lr=0.1)
    everything = prompts(module.policy)
    shares = [everything[rank::world], everything[:1] if rank == 0 else []]
    several: dict[str, Any] = {
        "plugins": [TorchElasticEnvironment()],
        "strategy": ShardedStrategy() if strategy == "fsdp" else strategy,
    }
    trainer = make_trainer(devices=world, **(several if world > 1 else {}))
    steps = [(PromptGroups(tuple(share)),) for share in shares]
    trainer.fit(module, ToyData(steps, steps[:1]))
    figures = {name: trainer.callback_metrics[name].item() for name in (*FIGURES, "val/score")}
    return weights(module), figures


def weights(module: PolicyModule) -> Tensor:
    trained = (p.detach() for p in module.parameters() if p.requires_grad)
    whole = (p.full_tensor() if isinstance(p, DTensor) else p for p in trained)
    return torch.cat([weight.flatten() for weight in whole]).double()


def one_rank(folder: Path, strategy: str, dtype: str) -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    join(f"file://{folder / f'meeting-{strategy}'}")
    for kind in KINDS:
        trained, figures = train(
            kind, rank=rank, world=world, strategy=strategy, dtype=getattr(torch, dtype)
        )
        found = [trained.tolist(), figures]
        (folder / f"{kind}.{rank}").write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("strategy", "world", "dtype"),
    [
        ("ddp", 2, "float64"),
        *(
            pytest.param(strategy, world, dtype, marks=pytest.mark.slow)
            for strategy, world, dtype in (
                ("fsdp", 2, "float64"),
                ("fsdp", 4, "float64"),
                ("ddp", 2, "float32"),
                ("fsdp", 2, "float32"),
                ("fsdp", 4, "float32"),
            )
        ),
    ],
)
def test_ranks_equal_one(strategy: str, world: int, dtype: str, tmp_path: Path) -> None:
    run_ranks(Path(__file__), [str(tmp_path), strategy, dtype], world=world)
    equal_one(tmp_path, world=world, dtype=dtype)


def equal_one(folder: Path, *, world: int, dtype: str) -> None:
    """Compare what `one_rank` left there with what this process learns alone."""
    number = getattr(torch, dtype)
    relative, within = (1e-9, 1e-11) if dtype == "float64" else (0.0, 1e-6)
    for kind in KINDS:
        expected, figures = train(kind, rank=0, world=1, strategy="auto", dtype=number)
        before = weights(make_module(make_parts(kind)))
        assert (expected - before).abs().max() > 1e-4
        for rank in range(world):
            trained, found = json.loads((folder / f"{kind}.{rank}").read_text())
            there = torch.tensor(trained, dtype=torch.float64)
            torch.testing.assert_close(there, expected, rtol=relative, atol=within)
            assert found == pytest.approx(figures, rel=max(relative, 1e-4 if within == 1e-6 else 0))


if __name__ == "__main__":
    one_rank(*(kind(value) for kind, value in zip((Path, str, str), sys.argv[1:], strict=True)))
