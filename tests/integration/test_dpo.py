"""DPO on token trees: the arithmetic of responses alone, of any cut of a step, and learning."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import pytest
import torch
from small import GPT2, feedback_samples, make_assistant, make_collator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dress.assistant import Assistant
from dress.chat.preferences import Corruption, PreferenceEncoder
from dress.errors import InputError
from dress.modeling.language import add_lora, token_embedding
from dress.modeling.reference import Reference
from dress.objectives.dpo import DPO
from dress.types import EncodedGroup, LossOutput, TokenBatch
from lit_modules.alignment import AlignmentModule

SAMPLES = feedback_samples(4, responses=4, seed=1)
LAYOUTS = [
    {"share_prefixes": True},
    {"share_prefixes": True, "rows_per_batch": 1},
    {"share_prefixes": True, "row_tokens": 900},
    {"share_prefixes": False},
    {"share_prefixes": False, "rows_per_batch": 3},
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")


def prepared(corrupted: Corruption = "none") -> tuple[Assistant, list[EncodedGroup]]:
    assistant = make_assistant(SAMPLES, language=GPT2)
    assistant.model.double()
    encoder = PreferenceEncoder(processor=assistant.processor, corrupted=corrupted)
    return assistant, [encoder(sample, epoch=0) for sample in SAMPLES]


def moved(model: nn.Module, scale: float = 0.02) -> None:
    """Move all weights a little, so that the policy is no longer its reference."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(noise * scale)


def log_probs_alone(assistant: Assistant, group: EncodedGroup) -> tuple[Tensor, Tensor]:
    """The sum and the number of supervised log-probabilities of each response, run by itself."""
    model, sums, lengths = assistant.model, [], []
    for sequence in group.sequences:
        ids, mask = torch.from_numpy(sequence.input_ids), torch.from_numpy(sequence.loss_mask)
        pixels = torch.stack([group.pixels[name] for name in sequence.images])
        embeds = token_embedding(model.language)(ids)
        places = (ids == model.image_token_id).nonzero().squeeze(1)
        features = model.projector(model.vision(pixels)).flatten(0, 1)
        embeds = embeds.index_copy(0, places, features)
        logits = model.language(inputs_embeds=embeds[None], use_cache=False).logits[0, :-1]
        own = logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        sums.append(own[mask[1:]].sum())
        lengths.append(mask.sum())
    return torch.stack(sums), torch.stack(lengths)


@dataclass(frozen=True)
class Expected:
    losses: Tensor
    chosen: Tensor
    rejected: Tensor


def pair_loss(variant: str, h: Tensor, mean_log_prob: Tensor) -> Tensor:
    """With the settings of VARIANTS."""
    right, wrong = torch.log1p(torch.exp(-0.1 * h)), torch.log1p(torch.exp(0.1 * h))
    return {
        "dpo": right,
        "smooth": 0.8 * right + 0.2 * wrong,
        "ipo": (h - 5) ** 2,
        "sft": right - 0.5 * mean_log_prob,
        "mdpo": right,
    }[variant]


def image_loss(group: EncodedGroup, chosen: int, ratio: Tensor) -> Tensor:
    """mDPO's two terms with weights 0.5 and 2, where there are corrupted images."""
    poorer = dict(group.image_pairs).get(chosen)
    if poorer is None:
        return torch.zeros(())
    image = torch.log1p(torch.exp(-0.1 * (ratio[chosen] - ratio[poorer])))
    return 0.5 * image + 2 * torch.log1p(torch.exp(-0.1 * ratio[chosen]))


def expected(
    policy: Assistant, start: Assistant, groups: Sequence[EncodedGroup], variant: str
) -> Expected:
    """Each pair by itself, in the words of the papers."""
    losses, chosen, rejected = [], [], []
    for group in (g for g in groups if g.pairs):  # that of one is a tie
        now, lengths = log_probs_alone(policy, group)
        with torch.no_grad():
            before, _ = log_probs_alone(start, group)
        ratio = (now - before) / (lengths if variant == "ipo" else 1)
        for c, r in group.pairs:
            h = ratio[c] - ratio[r]
            losses.append(pair_loss(variant, h, now[c] / lengths[c]) + image_loss(group, c, ratio))
            chosen.append(0.1 * ratio[c])
            rejected.append(0.1 * ratio[r])
    return Expected(torch.stack(losses), torch.stack(chosen), torch.stack(rejected))


VARIANTS = {
    "dpo": DPO(),
    "smooth": DPO(label_smoothing=0.2),
    "ipo": DPO(variant="ipo"),
    "sft": DPO(sft_weight=0.5),
    "mdpo": DPO(image_term=0.5, anchor=2.0),
}


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layout_gives_the_pairs_of_responses_alone(variant: str) -> None:
    policy, groups = prepared("crop" if variant == "mdpo" else "none")
    policy.model.eval()
    start = copy.deepcopy(policy)
    objective = VARIANTS[variant]
    objective.prepare(policy.model)
    moved(policy.model)
    wanted = expected(policy, start, groups, variant)
    assert len(wanted.losses) >= 8  # several pairs of a prompt share responses
    wanted.losses.sum().backward()
    wanted_gradients = gradients(policy.model)
    for layout in LAYOUTS:
        outputs = []
        for batch in make_collator(policy, **layout)(groups):
            output = objective(policy.model, batch)
            output.loss_sum.backward()
            outputs.append(output)
        assert sum(float(o.count) for o in outputs) == len(wanted.losses)
        total = sum((o.loss_sum.detach() for o in outputs), torch.zeros(()).double())
        torch.testing.assert_close(total, wanted.losses.sum().detach(), rtol=1e-10, atol=0)
        check_metrics(outputs, wanted)
        found = gradients(policy.model)
        assert found.keys() == wanted_gradients.keys()
        for name, gradient in wanted_gradients.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-10)


def check_metrics(outputs: Sequence[LossOutput], wanted: Expected) -> None:
    def total(name: str) -> float:
        return sum(float(output.metrics[name]) for output in outputs)

    margin = (wanted.chosen - wanted.rejected).detach()
    assert total("rewards/chosen") == pytest.approx(wanted.chosen.sum().item(), rel=1e-9)
    assert total("rewards/rejected") == pytest.approx(wanted.rejected.sum().item(), rel=1e-9)
    assert total("rewards/margin") == pytest.approx(margin.sum().item(), rel=1e-8)
    assert total("rewards/accuracy") == int((margin > 0).sum()) not in (0, len(margin))
    assert total("kl") > 0


def test_the_image_term_needs_corrupted_images() -> None:
    policy, groups = prepared()
    objective = DPO(image_term=1.0)
    objective.prepare(policy.model)
    (batch,) = make_collator(policy)(groups)
    with pytest.raises(InputError, match=r"give datamodule.encoder.corrupted=crop or blank"):
        objective(policy.model, batch)


def test_before_the_first_step_nothing_differs_from_the_reference() -> None:
    assistant, groups = prepared()
    objective = DPO()
    objective.prepare(assistant.model)
    (batch,) = make_collator(assistant)(groups)
    metrics = objective(assistant.model, batch).metrics
    for name in ("rewards/chosen", "rewards/rejected", "kl"):
        assert abs(float(metrics[name])) < 1e-10


def test_the_reference_is_the_adapter_as_it_began_and_the_rest_as_it_is() -> None:
    assistant, groups = prepared()
    model = assistant.model
    (batch,) = make_collator(assistant)(groups)
    with torch.no_grad():
        parent = model.eval()(batch)
    model.language = add_lora(model.language, r=2, alpha=4, dropout=0.5).double()
    model.requires_grad_(False)
    trained = [p for n, p in model.named_parameters() if "lora_" in n or "projector" in n]
    for parameter in trained:
        parameter.requires_grad_(True)
    model.train()
    reference = Reference(model)
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.3)
    now = [parameter.clone() for parameter in trained]
    torch.testing.assert_close(reference(model, batch), parent, rtol=1e-12, atol=1e-12)
    dropouts = [m for m in model.modules() if isinstance(m, nn.Dropout) and m.p == 0.5]
    assert dropouts and all(m.training for m in dropouts)  # off for the reference alone
    assert all(torch.equal(a, b) for a, b in zip(trained, now, strict=True))
    assert not torch.allclose(model.eval()(batch), parent, atol=1e-3)


def test_a_few_pairs_are_learnt_by_heart() -> None:
    assistant = make_assistant(SAMPLES)
    model = assistant.model.train()
    encoder = PreferenceEncoder(processor=assistant.processor, pairs="best_worst")
    (batch,) = make_collator(assistant)([encoder(sample, epoch=0) for sample in SAMPLES])
    objective = DPO()
    objective.prepare(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    margins = []
    for _ in range(40):
        optimizer.zero_grad()
        output = objective(model, batch)
        (output.loss_sum / output.count).backward()
        optimizer.step()
        margins.append(float(output.metrics["rewards/margin"] / output.count))
    assert float(output.metrics["rewards/accuracy"]) == float(output.count) >= 3
    assert abs(margins[0]) < 1e-5 and margins[-1] > margins[len(margins) // 2] > margins[3] > 0
    assert float(output.loss_sum.detach() / output.count) < 0.1
    assert float(output.metrics["kl"]) > 0


class Steps(L.LightningDataModule):
    def __init__(self, steps: list[tuple[TokenBatch, ...]]) -> None:
        super().__init__()
        self.steps = steps

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.steps, batch_size=None)  # type: ignore[arg-type]


def trained(**layout: int | None) -> Tensor:
    """Three optimizer steps on the same groups, cut up in one way or another."""
    assistant, groups = prepared()
    steps = [make_collator(assistant, **layout)(groups)] * 3
    assert (len(steps[0]) > 1) == ("rows_per_batch" in layout)
    objective = DPO()
    objective.prepare(assistant.model)
    module = AlignmentModule(
        model=assistant.model,
        objective=objective,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1),
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, Steps(steps))
    assert trainer.callback_metrics["train/rewards/margin"] > 0
    return torch.cat([p.detach().flatten() for p in assistant.model.parameters()])


def test_how_a_step_is_cut_up_changes_nothing() -> None:
    whole = trained()
    for rows in (1, 2):
        torch.testing.assert_close(trained(rows_per_batch=rows), whole, rtol=0, atol=1e-11)


def test_mistakes_name_the_setting() -> None:
    with pytest.raises(InputError, match="dpo or ipo"):
        DPO(variant="kto")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="beta is 0: give a number above 0"):
        DPO(beta=0)
    with pytest.raises(InputError, match="label_smoothing is for variant=dpo"):
        DPO(variant="ipo", label_smoothing=0.1)
