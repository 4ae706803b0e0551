"""PPO and GRPO on a small model: what is noted of responses, gradients of any cut, learning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightning as L
import pytest
import torch
from policies import NO_JUDGE, SAMPLES, Parts, assistant, make_module, make_parts, prompts
from torch import Tensor
from torch.utils.data import DataLoader

from dress.assistant import Assistant
from dress.chat.prompts import PromptEncoder, PromptGroups
from dress.errors import Reject
from dress.feedback.experience import Drawn, draw
from dress.modeling.language import token_embedding
from dress.objectives.functional import target_log_probs
from dress.objectives.symbolic import SymbolicRewards
from dress.types import Encoded
from lit_modules.alignment import NonFiniteStep
from lit_modules.policy import Diverged, PolicyModule, rollout_seed

KINDS = ("ppo", "grpo")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")


def drawn_by(parts: Parts, seed: int = 0) -> list[Drawn]:
    groups = prompts(parts.policy)
    return draw(parts.policy, groups, rollouts=parts.objective.rollouts, seed=seed)


def states_alone(reader: Assistant, prompt: Encoded, response: tuple[int, ...]) -> Tensor:
    """Run one prompt and response by itself; return the states before the response's tokens."""
    model: Any = reader.model
    ids = torch.tensor([*prompt.input_ids.tolist(), *response])
    _, pixels = reader.processor.load_images(SAMPLES[0].images)
    embeds = token_embedding(model.language)(ids)
    features = model.projector(model.vision(torch.stack([pixels[n] for n in prompt.images])))
    places = (torch.from_numpy(prompt.input_ids) == model.image_token_id).nonzero().squeeze(1)
    embeds = embeds.index_copy(0, places, features.flatten(0, 1))
    hidden = model.language.transformer(inputs_embeds=embeds[None]).last_hidden_state[0]
    return hidden[len(prompt.input_ids) - 1 : -1]


def test_what_is_noted_is_what_each_response_gives_alone() -> None:
    parts = make_parts("ppo")
    first = drawn_by(parts)[0]
    # a model may also draw the token that stands for images
    odd = (*first.tokens[0][:2], parts.policy.model.image_token_id, *first.tokens[0][3:])
    first = replace(first, tokens=(odd, *first.tokens[1:]))
    (part,), sums = parts.maker([first])
    assert part.values is not None and parts.critic is not None
    log_probs, values = [], []
    prompt = first.group.sequences[0]
    with torch.no_grad():
        for response in first.tokens:
            logits = parts.policy.model.language.lm_head(
                states_alone(parts.policy, prompt, response)
            )
            own = logits.log_softmax(-1)
            log_probs.append(own.gather(1, torch.tensor(response)[:, None])[:, 0])
            head = parts.critic.model.scalar_head
            assert head is not None
            values.append(head(states_alone(parts.critic, prompt, response))[:, 0])
    torch.testing.assert_close(part.log_probs, torch.cat(log_probs), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(part.values, torch.cat(values), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(part.reference, part.log_probs, rtol=1e-4, atol=1e-4)
    assert sums["response_length"] == sum(map(len, first.tokens)) and sums["count"] == 4


def test_the_symbolic_rewards_are_added_and_counted() -> None:
    weights = SymbolicRewards(correct=2.0, length=-10.0, no_end=-8.0)
    parts = make_parts("grpo", rewards=weights)
    drawn = drawn_by(parts)[0]
    end = parts.policy.model.eos_token_id
    sample = replace(drawn.group.sample, annotations={"answer": "no"})
    drawn = replace(
        drawn,
        group=replace(drawn.group, sample=sample),
        tokens=((5, end), (5, 6, 7, 8, 9, 10, 11, 12)),
        log_probs=((-1.0,) * 2, (-1.0,) * 8),
        texts=("No.", "Yes"),
        ended=(True, False),
    )
    (part,), sums = parts.maker([drawn])
    # 2 * 0.5 - 10 * 2 / 8 and 2 * -0.5 - 10 * 8 / 8 - 8; there is no letter a
    assert part.rewards.tolist() == [1.0 - 2.5, -1.0 - 10.0 - 8.0]
    assert sums["no_end_share"] == 1 and sums["correctness"] == 0
    assert sums["true_score_count"] == 0  # it is no scene any more


def gradients(kind: str, groups_per_batch: int | None) -> tuple[list[Tensor], float]:
    parts = make_parts(kind, groups_per_batch=groups_per_batch)
    module = make_module(parts)
    made, _ = parts.maker(drawn_by(parts))
    total, count = 0.0, 0.0
    for part in parts.objective.advantages(made):
        # as after a step: neither ratio nor distance is what it was
        noise = 0.3 * part.batch.target_ids.sin()
        moved = replace(
            part, log_probs=part.log_probs + noise, reference=part.reference - 2 * noise
        )
        output = module.loss(moved)
        output.loss_sum.backward()
        total += output.loss_sum.item()
        count += output.count.item()
    assert len(made) == (1 if groups_per_batch is None else 4)
    found = [p.grad / count for p in module.parameters() if p.grad is not None]
    return found, total / count


@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_change_no_gradient(kind: str) -> None:
    whole, loss = gradients(kind, None)
    pieces, same = gradients(kind, 1)
    assert same == pytest.approx(loss, rel=1e-4) and len(whole) == len(pieces) > 10
    largest = max(gradient.abs().max().item() for gradient in whole)
    for one, other in zip(whole, pieces, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * largest)


class Noting(L.Callback):
    def __init__(self) -> None:
        self.figures: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.figures.append({n: float(v) for n, v in trainer.callback_metrics.items()})


def train(module: PolicyModule, *, rollouts: int) -> list[dict[str, float]]:
    batch = (PromptGroups(tuple(prompts(module.policy))),)
    noting = Noting()
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=rollouts * module.policy_objective.rollouts.updates,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[noting],
    )
    trainer.fit(module, DataLoader([batch], batch_size=None, collate_fn=None))
    return noting.figures


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_is_learnt(kind: str) -> None:
    parts = make_parts(kind, samples=8, max_kl=1e6)
    module = make_module(parts, lr=3e-3)
    figures = train(module, rollouts=12)
    rewards = [line["ppo/reward"] for line in figures]
    assert len(rewards) == 12 == module.rollouts
    assert sum(rewards[-3:]) / 3 > 1.5 * sum(rewards[:3]) / 3 > 0
    first, last = figures[0], figures[-1]
    assert abs(first["ppo/kl"]) < 1e-3 < last["ppo/kl"]
    assert all(0 < line["ppo/log_prob_gap"] < 1e-4 for line in figures)
    assert last["ppo/entropy"] < first["ppo/entropy"]
    assert last["train/generated_tokens"] * 2 == last["train/trained_tokens"]
    common = {"policy_loss", "clip_fraction", "ratio", "approx_kl", "grad_norm", "loss"}
    names = common | ({"value_loss", "value_clip_fraction"} if kind == "ppo" else {"kl"})
    assert {f"train/{name}" for name in names} <= set(last)
    assert "ppo/true_score" not in last  # these records hold no scene
    assert all(not module.training for module in module.modules())


def test_the_first_step_of_a_rollout_has_a_ratio_of_1() -> None:
    parts = make_parts("ppo")
    module = make_module(parts)
    made, _ = parts.maker(drawn_by(parts))
    (part,) = parts.objective.advantages(made)
    output = module.loss(part)
    assert output.metrics["ratio"].item() == pytest.approx(output.count.item(), rel=1e-5)
    assert output.metrics["clip_fraction"].item() == 0
    tokens = part.batch
    logits = parts.policy.model(tokens)
    again = target_log_probs(logits, tokens.target_logit, tokens.target_ids)
    torch.testing.assert_close(again, part.log_probs)


def test_the_same_seed_draws_the_same_responses() -> None:
    parts = make_parts("grpo")
    one, same, other = (drawn_by(parts, seed) for seed in (3, 3, 4))
    assert [d.tokens for d in one] == [d.tokens for d in same] != [d.tokens for d in other]
    seeds = {rollout_seed(s, n, r) for s in range(3) for n in range(3) for r in range(3)}
    assert len(seeds) == 27


def test_a_run_that_diverges_ends_with_a_sentence() -> None:
    lost = make_module(make_parts("ppo", max_kl=1e-9), lr=1e-2)
    with pytest.raises(Diverged, match=r"rollout \d+ diverged: ppo/kl is .* objective\.rollouts"):
        train(lost, rollouts=6)
    endless = make_module(make_parts("grpo", max_unfinished=0.01))
    with pytest.raises(Diverged, match="rollout 1 diverged: ppo/no_end_share"):
        train(endless, rollouts=1)
    apart = make_module(make_parts("grpo", max_log_prob_gap=1e-12))
    with pytest.raises(Diverged, match=r"ppo/log_prob_gap is .*\.max_log_prob_gap=1e-12"):
        train(apart, rollouts=1)
    broken = make_parts("ppo", judge=lambda j: torch.full((4 * len(j),), float("nan")))
    with pytest.raises(Diverged, match="rollout 1 is not finite in ppo/reward, ppo/score"):
        train(make_module(broken), rollouts=1)


def test_a_step_that_is_not_finite_names_its_groups() -> None:
    parts = make_parts("ppo")
    parts.objective.value_weight = float("nan")  # type: ignore[attr-defined]
    before = [p.clone() for p in parts.policy.model.parameters()]
    with pytest.raises(NonFiniteStep, match=r"step 1 is not finite .* rank 0: s0, s1") as stopped:
        train(make_module(parts), rollouts=1)
    assert not isinstance(stopped.value, Diverged)
    assert all(map(torch.equal, before, parts.policy.model.parameters()))


@pytest.mark.parametrize("bonus", ["long", True, 10**400])
def test_a_prompt_whose_bonus_is_no_number_is_a_reject(bonus: object) -> None:
    encoder = PromptEncoder(processor=assistant().processor, room=1, judge=NO_JUDGE)
    with pytest.raises(Reject, match="invalid record"):
        encoder(replace(SAMPLES[0], annotations={"length_bonus": bonus}), epoch=0)


def test_a_prompt_without_room_is_a_reject() -> None:
    policy = assistant()
    length = len(prompts(policy)[0].sequences[0].input_ids)
    room = policy.processor.max_length - length
    PromptEncoder(processor=policy.processor, room=room, judge=NO_JUDGE)(SAMPLES[0], epoch=0)
    crowded = PromptEncoder(processor=policy.processor, room=room + 1, judge=NO_JUDGE)
    with pytest.raises(Reject, match="too long"):
        crowded(SAMPLES[0], epoch=0)
