"""A small policy with its judge, its value model and prompts about drawn scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from small import GPT2, feedback_samples, make_collator, model_config, texts_of
from torch import Tensor, nn

from dress.assistant import Assistant
from dress.chat.prompts import PromptEncoder, PromptGroup
from dress.feedback.experience import ExperienceMaker
from dress.feedback.oracle import true_score
from dress.loading import assemble
from dress.modeling.build import build_model
from dress.modeling.lvlm import LVLM
from dress.modeling.reference import Reference
from dress.modeling.tokenizer import train_tokenizer
from dress.modeling.trainable import set_trainable
from dress.objectives.grpo import GRPO
from dress.objectives.policy_objective import PolicyObjective
from dress.objectives.ppo import PPO
from dress.objectives.rollouts import Rollouts
from dress.objectives.symbolic import SymbolicRewards
from dress.types import Sample
from lit_modules.policy import PolicyModule

SAMPLES = feedback_samples(4, responses=1)
TOKENIZER = train_tokenizer(texts_of(SAMPLES), vocab_size=400)
NO_SYMBOLS = SymbolicRewards(correct=0.0, length=0.0, no_end=0.0)
OBJECTIVES: dict[str, Any] = {"ppo": PPO, "grpo": GRPO}


class _ReadsAll:
    def check(self, sample: Sample, room: int) -> None:
        """Take a response of any length."""


NO_JUDGE = _ReadsAll()
Judge = Callable[[Sequence[tuple[Sample, Sequence[str]]]], Tensor]


def assistant(*, scalar_head: bool = False, seed: int = 0, lora: Any = None) -> Assistant:
    torch.manual_seed(seed)
    config = model_config(GPT2)
    config["model"] |= {"scalar_head": scalar_head, "max_length": 500}
    config["model"]["language"] |= {"lora": lora}
    model = build_model(config["model"], tokenizer=TOKENIZER)
    return assemble(config, model=model.eval(), tokenizer=TOKENIZER)


def prompts(policy: Assistant, *, room: int = 8) -> list[PromptGroup]:
    encoder = PromptEncoder(processor=policy.processor, room=room, judge=NO_JUDGE)
    return [encoder(sample, epoch=0) for sample in SAMPLES]


@dataclass(frozen=True)
class Parts:
    policy: Assistant
    critic: Assistant | None
    objective: PolicyObjective
    maker: ExperienceMaker


def share_of_the_letter_a(judged: Sequence[tuple[Sample, Sequence[str]]]) -> Tensor:
    texts = [text for _, own in judged for text in own]
    return torch.tensor([10 * text.count("a") / max(len(text), 1) for text in texts])


def make_parts(
    kind: str,
    *,
    judge: Judge = share_of_the_letter_a,
    groups_per_batch: int | None = None,
    rewards: SymbolicRewards = NO_SYMBOLS,
    lora: Any = None,
    prepare: Callable[[LVLM], object] = lambda model: None,
    **rollouts: Any,
) -> Parts:
    """Build the parts of a PolicyModule; `prepare` changes models before their weights are kept."""
    policy = assistant(lora=lora)
    set_trainable(policy.model, ["lora" if lora else "language", "projector"])
    critic = assistant(scalar_head=True, seed=1) if kind == "ppo" else None
    if critic is not None:
        set_trainable(critic.model, ["language"])
        prepare(critic.model)
    prepare(policy.model)
    settings = Rollouts(**({"max_new_tokens": 8, "samples": 4, "max_unfinished": 2.0} | rollouts))
    objective = OBJECTIVES[kind](rollouts=settings, rewards=rewards)
    maker = ExperienceMaker(
        policy=policy,
        policy_collator=make_collator(policy),
        scorer=judge,  # type: ignore[arg-type]
        reference=Reference(policy.model),
        rewards=rewards,
        max_new_tokens=settings.max_new_tokens,
        truth=true_score,
        critic=critic,
        critic_collator=make_collator(critic) if critic else None,
        groups_per_batch=groups_per_batch,
    )
    return Parts(policy, critic, objective, maker)


def make_module(parts: Parts, *, lr: float = 1e-3) -> PolicyModule:
    return PolicyModule(
        policy=parts.policy,
        objective=parts.objective,
        maker=parts.maker,
        judge=nn.Identity(),
        critic=parts.critic.model if parts.critic else None,
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=lr),
        seed=0,
    )
