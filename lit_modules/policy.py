"""Train a policy on its own responses (PPO, GRPO): a batch of prompts is one rollout.

Responses are drawn and scored, then learned from in `epochs` times `minibatches` steps of the
optimizer. Everything random follows from the seed and the number of the rollout, and dropout rests,
so that a run that resumes between rollouts is the uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dress.artifact import Artifact
from dress.assistant import Assistant
from dress.chat.prompts import PromptGroup, PromptGroups
from dress.data.collate import TreeCollator
from dress.distributed import gather, place
from dress.errors import InputError
from dress.feedback.experience import Drawn, ExperienceMaker, draw
from dress.feedback.oracle import true_score
from dress.feedback.reward_scorer import RewardScorer
from dress.loading import value_model
from dress.modeling.reference import Reference
from dress.modeling.sharding import gathered
from dress.objectives.functional import target_log_probs
from dress.objectives.policy_objective import Experience, PolicyObjective
from dress.settings import Amount, checked
from dress.types import LossOutput
from lit_modules.alignment import CHECKPOINT_KEY, AlignmentModule, NonFiniteStep
from lit_modules.totals import add, means, over_ranks

VALIDATION = 2**31  # apart from the numbers of rollouts


class Diverged(NonFiniteStep):
    """The policy left the ground on which its rewards mean anything."""

    remedy = "lower optimizer.lr, raise objective.kl, or the limit"


class PolicyModule(AlignmentModule):
    """Draw, score, learn. `judge` is a frozen reward model, `critic` the value model, if any."""

    def __init__(
        self,
        *,
        policy: Assistant,
        objective: PolicyObjective,
        maker: ExperienceMaker,
        judge: nn.Module,
        critic: nn.Module | None,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        gradient_clip: float | None = 1.0,
        activation_checkpointing: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            model=policy.model,
            objective=objective,  # type: ignore[arg-type]
            optimizer=optimizer,
            scheduler=scheduler,
            gradient_clip=gradient_clip,
            activation_checkpointing=activation_checkpointing,
        )
        self.policy, self.policy_objective, self.maker = policy, objective, maker
        self.judge, self.critic, self.seed = judge, critic, seed
        self.rollouts = 0
        self.generated_tokens = self.trained_tokens = 0

    def train(self, mode: bool = True) -> PolicyModule:
        """Stay in eval mode: p/p_old is 1 at first only without dropout."""
        nn.Module.train(self, False)
        return self

    def training_step(self, batch: Sequence[PromptGroups], batch_idx: int) -> None:  # type: ignore[override]
        (prompts,) = batch
        minibatches, sums = self._collect(prompts, number=self.rollouts)
        self._check(sums)
        parts = self.policy_objective.advantages([p for part in minibatches for p in part])
        sums |= self._spread(parts)
        remaining = iter(parts)
        minibatches = [[next(remaining) for _ in part] for part in minibatches]
        settings = self.policy_objective.rollouts
        totals: dict[str, float] = {}
        for _ in range(settings.epochs):
            for minibatch in minibatches:
                add(totals, self.update(minibatch) or {})
        self.rollouts += 1
        self.generated_tokens += int(sums["response_length"])
        self.trained_tokens += int(sums["response_length"]) * settings.epochs
        if totals:
            self.show(totals, norm_of=settings.updates)
        self.log_dict(
            means(sums, "ppo")
            | {
                "ppo/rollouts": float(self.rollouts),
                "train/generated_tokens": float(self.generated_tokens),
                "train/trained_tokens": float(self.trained_tokens),
                "train/empty_steps": float(self.empty_steps),
            },
            batch_size=1,
        )

    def loss(self, batch: Experience) -> LossOutput:
        tokens = batch.batch
        (log_probs,) = self.model(tokens, target_log_probs)
        values = None
        if self.critic is not None:
            values = self.critic.values(batch.critic)  # type: ignore[operator]
        return self.policy_objective.loss(batch, log_probs, values)

    def draw(self, groups: Sequence[PromptGroup], *, number: int) -> list[Drawn]:
        """Draw the responses of this rank's share of a rollout."""
        seed = rollout_seed(self.seed, number, self.global_rank)
        return draw(self.policy, groups, rollouts=self.policy_objective.rollouts, seed=seed)

    def _drawn(self, prompts: PromptGroups, *, number: int) -> list[Drawn]:
        """Draw with all weights at hand: ranks end their responses after different steps."""
        with gathered(self.model):
            return self.draw(prompts.groups, number=number)

    def _collect(
        self, prompts: PromptGroups, *, number: int
    ) -> tuple[list[list[Experience]], dict[str, float]]:
        """Return the minibatches of a rollout, and sums over all ranks."""
        drawn = self._drawn(prompts, number=number)
        minibatches, own = [], dict[str, float]()
        for part in cut(drawn, self.policy_objective.rollouts.minibatches):
            parts, sums = self.maker(part)
            minibatches.append(parts)
            add(own, sums)
        return minibatches, over_ranks(own)

    def _spread(self, parts: Sequence[Experience]) -> dict[str, float]:
        """Sums over tokens of advantages, values and returns."""
        own = dict[str, float]()
        for part in parts:
            if part.advantages is None:
                continue
            found = {"advantages_abs": part.advantages.abs()}
            if part.values is not None and part.returns is not None:
                found |= {"values": part.values, "returns": part.returns}
                found["advantages"] = part.returns - part.values  # before whitening
            else:
                found["advantages"] = part.advantages
            for name, value in found.items():
                add(own, {name: value.double().sum().item(), f"{name}_count": float(len(value))})
        return over_ranks(own)

    def _check(self, sums: dict[str, float]) -> None:
        settings, figures = self.policy_objective.rollouts, means(sums, "ppo")
        if not figures:
            return
        if bad := sorted(name for name, value in figures.items() if not math.isfinite(value)):
            raise Diverged(f"rollout {self.rollouts + 1} is not finite in {', '.join(bad)}")
        limits = {
            "kl": "max_kl",
            "no_end_share": "max_unfinished",
            "log_prob_gap": "max_log_prob_gap",
        }
        for name, limit in limits.items():
            most = getattr(settings, limit)
            if (found := figures[f"ppo/{name}"]) > most:
                raise Diverged(
                    f"rollout {self.rollouts + 1} diverged: ppo/{name} is {found:.3g}, over "
                    f"objective.rollouts.{limit}={most:g}"
                )

    def on_validation_epoch_start(self) -> None:
        self._sums: dict[str, float] = {}

    def validation_step(self, batch: Sequence[PromptGroups], batch_idx: int) -> None:  # type: ignore[override]
        for prompts in batch:
            _, sums = self.maker(self._drawn(prompts, number=VALIDATION + batch_idx))
            add(self._sums, sums)

    def on_validation_epoch_end(self) -> None:
        if not (figures := means(over_ranks(self._sums), "val")):
            raise InputError("no validation prompt is left: check the val split, or give more data")
        self.log_dict(figures | {"step": float(self.global_step)}, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY] |= {
            "rollouts": self.rollouts,
            "generated_tokens": self.generated_tokens,
            "trained_tokens": self.trained_tokens,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint[CHECKPOINT_KEY]
        self.rollouts = saved["rollouts"]
        self.generated_tokens = saved["generated_tokens"]
        self.trained_tokens = saved["trained_tokens"]


def cut(drawn: Sequence[Drawn], minibatches: int) -> list[list[Drawn]]:
    """Cut this rank's share as one process cuts the whole, of which it has every world-th prompt.

    A part may be empty here and not in another rank.
    """
    rank, world = place()
    numbers = range(rank, rank + world * len(drawn), world)
    total = max(gather(numbers[-1] + 1 if drawn else 0))
    parts = np.array_split(np.arange(total), minibatches)
    return [[each for each, n in zip(drawn, numbers, strict=True) if n in part] for part in parts]


def rollout_seed(seed: int, number: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, number, rank)).generate_state(1)[0])


@checked
def policy_module(
    *,
    assistant: Assistant,
    objective: PolicyObjective,
    judge: RewardScorer,
    reward: Artifact,
    collator_of: Callable[[Assistant], TreeCollator],
    rows_per_batch: int | None,
    optimizer: Callable[[list[dict[str, Any]]], Optimizer],
    scheduler: Callable[[Optimizer], LRScheduler],
    gradient_clip: Amount | None,
    activation_checkpointing: bool,
    seed: int,
) -> PolicyModule:
    """Join the policy, which is also the reference as it is now, with what judges it."""
    critic = value_model(reward, assistant) if objective.has_value else None
    collator, samples = collator_of(assistant), objective.rollouts.samples
    rows = 1 if collator.share_prefixes else samples  # that a prompt takes
    maker = ExperienceMaker(
        policy=assistant,
        policy_collator=collator,
        scorer=judge,
        reference=Reference(assistant.model),
        rewards=objective.rewards,
        max_new_tokens=objective.rollouts.max_new_tokens,
        truth=true_score,
        critic=critic,
        critic_collator=collator_of(critic) if critic else None,
        groups_per_batch=None if rows_per_batch is None else max(1, rows_per_batch // rows),
    )
    return PolicyModule(
        policy=assistant,
        objective=objective,
        maker=maker,
        judge=judge.model,
        critic=critic.model if critic else None,
        optimizer=optimizer,
        scheduler=scheduler,
        gradient_clip=gradient_clip,
        activation_checkpointing=activation_checkpointing,
        seed=seed,
    )
