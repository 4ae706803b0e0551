"""What a policy that learns from its own responses needs beside itself: a judge, a value model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dress.artifact import Artifact
from dress.assistant import Assistant
from dress.data.collate import TreeCollator
from dress.errors import InputError
from dress.feedback.experience import ExperienceMaker
from dress.feedback.oracle import true_score
from dress.feedback.reward_scorer import RewardScorer
from dress.jobs.job import Job
from dress.loading import artifact_spec, artifact_tokenizer, assemble, load_artifact, restore
from dress.modeling.build import build_model
from dress.modeling.reference import Reference
from dress.modeling.trainable import set_trainable
from dress.objectives.policy import PolicyObjective
from lit_modules.ppo import PolicyModule


def reward_scorer(job: Job, reward: Artifact) -> RewardScorer:
    """Load the frozen judge; whether it is told facts is a matter of its training."""
    judge = load_artifact(reward)
    return RewardScorer(
        assistant=judge,
        collator=_collator(job, judge),
        facts=bool(reward.config["datamodule"]["encoder"]["facts"]),
    )


def value_model(reward: Artifact, policy: Assistant) -> Assistant:
    """Build a model with the reward model's weights and a head of zeros, ready to train."""
    spec = artifact_spec(reward)
    tokenizer = artifact_tokenizer(reward)
    if tokenizer.get_vocab() != policy.processor.tokenizer.get_vocab():
        raise InputError(
            f"{reward.path} has another tokenizer than the policy, so that no value model can be "
            "made of it: give a reward model from the same stage 1."
        )
    model = build_model(spec, tokenizer=tokenizer)
    restore(model, reward, spec=spec)
    assert model.scalar_head is not None
    with torch.no_grad():
        for parameter in model.scalar_head.parameters():
            parameter.zero_()
    set_trainable(model, spec["trainable"])
    return assemble(reward.config, model=model, tokenizer=tokenizer)


def policy_module(
    job: Job,
    policy: Assistant,
    objective: PolicyObjective,
    *,
    reward: Artifact,
    scorer: RewardScorer,
    training: Mapping[str, Any],
) -> PolicyModule:
    """Join the policy, which is also the reference as it is now, with what judges it."""
    critic = value_model(reward, policy) if objective.has_value else None
    rows, samples = job.cfg.datamodule.rows_per_batch, objective.rollouts.samples
    shared = job.cfg.datamodule.share_prefixes
    maker = ExperienceMaker(
        policy=policy,
        policy_collator=_collator(job, policy),
        scorer=scorer,
        reference=Reference(policy.model),
        rewards=objective.rewards,
        max_new_tokens=objective.rollouts.max_new_tokens,
        truth=true_score,
        critic=critic,
        critic_collator=_collator(job, critic) if critic else None,
        groups_per_batch=None if rows is None else rows if shared else max(1, rows // samples),
    )
    return PolicyModule(
        policy=policy,
        objective=objective,
        maker=maker,
        judge=scorer.model,
        critic=critic.model if critic else None,
        seed=job.cfg.seed,
        **training,
    )


def _collator(job: Job, assistant: Assistant) -> TreeCollator:
    node = job.cfg.datamodule
    return TreeCollator(
        pad_token_id=assistant.model.pad_token_id,
        image_token_id=assistant.model.image_token_id,
        num_image_tokens=assistant.processor.num_image_tokens,
        share_prefixes=node.share_prefixes and assistant.model.trees,
        pad_to_multiple=node.pad_to_multiple,
    )
