"""Draw responses from a policy, score them and record what PPO and GRPO learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dress.assistant import Assistant
from dress.chat.judging import expected_answer
from dress.chat.prompts import PromptGroup
from dress.data.collate import TreeCollator
from dress.distributed import gather
from dress.feedback.reward_scorer import RewardScorer, answered
from dress.modeling.decoding import DrawnLogProbs
from dress.modeling.reference import Reference
from dress.objectives.functional import target_entropies, target_log_probs
from dress.objectives.policy_objective import Experience
from dress.objectives.rollouts import Rollouts
from dress.objectives.symbolic import SymbolicRewards, correctness
from dress.types import Dialogue, Encoded, EncodedGroup, Sample, TokenBatch

Truth = Callable[[Sample, Dialogue], float | None]


@dataclass(frozen=True)
class Drawn:
    """The responses to one prompt: tokens up to and with the end token, where there is one.

    `log_probs` are those with which the tokens were drawn.
    """

    group: PromptGroup
    tokens: tuple[tuple[int, ...], ...]
    log_probs: tuple[tuple[float, ...], ...]
    texts: tuple[str, ...]
    ended: tuple[bool, ...]


def draw(
    assistant: Assistant, groups: Sequence[PromptGroup], *, rollouts: Rollouts, seed: int
) -> list[Drawn]:
    """Sample `rollouts.samples` responses to each prompt from the model's own distribution."""
    found: dict[int, Drawn] = {}
    end = assistant.model.eos_token_id
    order = sorted(range(len(groups)), key=lambda i: len(groups[i].sequences[0].input_ids))
    for start in range(0, len(order), rollouts.batch_size):
        rows = order[start : start + rollouts.batch_size]
        pixels = {name: image for i in rows for name, image in groups[i].pixels.items()}
        batch = assistant.collate([groups[i].sequences[0] for i in rows], pixels)
        kept = DrawnLogProbs()
        ids = assistant.model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            image_slot=batch.image_slot,
            pixels=batch.pixels,
            max_new_tokens=rollouts.max_new_tokens,
            temperature=1.0,
            num_return_sequences=rollouts.samples,
            seed=seed + start,
            drawn=kept,
        ).tolist()
        log_probs = kept.row_by_row(rows=len(ids))
        for place, i in enumerate(rows):
            places = slice(place * rollouts.samples, (place + 1) * rollouts.samples)
            own = ids[places]
            cut = tuple(tuple(row[: row.index(end) + 1] if end in row else row) for row in own)
            found[i] = Drawn(
                group=groups[i],
                tokens=cut,
                log_probs=tuple(
                    tuple(p[: len(r)]) for p, r in zip(log_probs[places], cut, strict=True)
                ),
                texts=tuple(assistant.processor.decode(row) for row in cut),
                ended=tuple(row[-1] == end for row in cut),
            )
    return [found[i] for i in range(len(groups))]


def as_group(drawn: Drawn, reader: Assistant | None = None) -> EncodedGroup:
    """Join prompt and responses; the prompt as the policy read it, or as `reader` reads it."""
    prompt, pixels = drawn.group.sequences[0], drawn.group.pixels
    if reader is not None:
        sample = drawn.group.sample
        images, pixels = reader.processor.load_images(sample.images)
        prompt = reader.processor.encode(sample.dialogues[0].turns, images=images, prompt_only=True)
    sequences = tuple(_continued(prompt, response) for response in drawn.tokens)
    return EncodedGroup(drawn.group.id, sequences, pixels)


def _continued(prompt: Encoded, response: tuple[int, ...]) -> Encoded:
    ids = np.concatenate([prompt.input_ids, np.array(response, dtype=np.int64)])
    mask = np.arange(len(ids)) >= len(prompt.input_ids)
    return replace(prompt, input_ids=ids, loss_mask=mask)


def one_batch(
    collator: TreeCollator, groups: Sequence[EncodedGroup], device: torch.device
) -> TokenBatch:
    (batch,) = collator(groups)
    return batch.to(device)


class ExperienceMaker:
    """Note log-probabilities, reference, rewards and values of responses.

    `policy_collator` and `critic_collator` give one batch, whatever its size, with its groups in
    their order: `groups_per_batch` bounds the prompts of a forward pass.
    """

    def __init__(
        self,
        *,
        policy: Assistant,
        policy_collator: TreeCollator,
        scorer: RewardScorer,
        reference: Reference,
        rewards: SymbolicRewards,
        max_new_tokens: int,
        truth: Truth,
        critic: Assistant | None = None,
        critic_collator: TreeCollator | None = None,
        groups_per_batch: int | None = None,
    ) -> None:
        self.policy, self.policy_collator = policy, policy_collator
        self.critic, self.critic_collator = critic, critic_collator
        self.scorer, self.reference, self.truth = scorer, reference, truth
        self.rewards, self.max_new_tokens = rewards, max_new_tokens
        self.groups_per_batch = groups_per_batch

    @torch.no_grad()
    def __call__(self, drawn: Sequence[Drawn]) -> tuple[list[Experience], dict[str, float]]:
        """Return one Experience per forward pass, at least one, maybe of no response.

        The sums count responses, or what `<name>_count` says.
        """
        size = self.groups_per_batch or max(len(drawn), 1)
        chunks = [drawn[start : start + size] for start in range(0, len(drawn), size)] or [[]]
        if self.policy.model.sharded:  # ranks put weights together equally often
            chunks += [[]] * (max(gather(len(chunks))) - len(chunks))
        parts, sums = [], dict[str, float]()
        for chunk in chunks:
            part, figures = self._one(chunk)
            parts.append(part)
            for name, value in figures.items():
                sums[name] = sums.get(name, 0.0) + value
        return parts, sums

    def _one(self, drawn: Sequence[Drawn]) -> tuple[Experience, dict[str, float]]:
        model = self.policy.model
        batch = one_batch(self.policy_collator, [as_group(each) for each in drawn], model.device)
        log_probs, entropies = model(batch, target_log_probs, target_entropies)
        (reference,) = self.reference(model, batch, target_log_probs)
        rewards, figures = self._rewards(drawn, device=model.device)
        part = Experience(
            batch=batch,
            log_probs=log_probs,
            reference=reference,
            rewards=rewards,
        )
        if self.critic is not None:
            assert self.critic_collator is not None
            groups = [as_group(each, self.critic) for each in drawn]
            critic = one_batch(self.critic_collator, groups, model.device)
            part = replace(part, critic=critic, values=self.critic.model.values(critic))
        drawn_with = [v for each in drawn for values in each.log_probs for v in values]
        gap = log_probs.double().cpu() - torch.tensor(drawn_with, dtype=torch.float64)
        drift = part.log_probs - part.reference
        tokens = float(len(drift))
        return part, figures | {
            "kl": drift.double().sum().item(),
            "entropy": entropies.double().sum().item(),
            "entropy_count": tokens,
            "log_prob_gap": gap.abs().sum().item(),
            "log_prob_gap_count": tokens,
            "response_length": tokens,
        }

    def _rewards(
        self, drawn: Sequence[Drawn], *, device: torch.device
    ) -> tuple[Tensor, dict[str, float]]:
        """Score and add the symbolic rewards; sums of each of them."""
        scores = self.scorer([(each.group.sample, each.texts) for each in drawn]).float()
        rows = [
            (each.group.sample, text, len(tokens), ended)
            for each in drawn
            for text, tokens, ended in zip(each.texts, each.tokens, each.ended, strict=True)
        ]
        right = torch.tensor([correctness(text, expected_answer(s)) for s, text, _, _ in rows])
        used = torch.tensor(
            [
                s.annotations.get("length_bonus", 1.0) * n / self.max_new_tokens
                for s, _, n, _ in rows
            ]
        )
        open_ended = torch.tensor([float(not ended) for *_, ended in rows])
        weights = self.rewards
        extra = weights.correct * right + weights.length * used + weights.no_end * open_ended
        rewards = scores + extra.to(scores)
        truths = [self.truth(sample, answered(sample, text)) for sample, text, _, _ in rows]
        known = [value for value in truths if value is not None]
        return rewards, {
            "count": float(len(rows)),
            "reward": rewards.double().sum().item(),
            "score": scores.double().sum().item(),
            "correctness": right.sum().item(),
            "no_end_share": open_ended.sum().item(),
            "true_score": float(sum(known)),
            "true_score_count": float(len(known)),
        }
