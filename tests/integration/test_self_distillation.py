"""The teacher and the student in one tree give what each gives alone, and the student follows."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from dress.assistant import Assistant
from dress.chat.condition import Condition
from dress.chat.distillation import SelfDistillationEncoder
from dress.errors import Reject
from dress.objectives.self_distillation import Divergence, SelfDistillation, Teacher
from dress.types import Dialogue, EncodedGroup, Sample, Turn
from tests.integration.small import GPT2, feedback_samples, make_assistant, make_collator

SAMPLES = feedback_samples(4)
CONDITION = Condition(form="both")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")


def prepared() -> tuple[Assistant, list[EncodedGroup]]:
    assistant = make_assistant(SAMPLES, language=GPT2)
    assistant.model.double().eval()
    encoder = SelfDistillationEncoder(processor=assistant.processor, condition=CONDITION)
    return assistant, [encoder(sample, epoch=0) for sample in SAMPLES]


def moved(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(noise * 0.02)


def alone(assistant: Assistant, group: EncodedGroup, number: int) -> tuple[Tensor, Tensor]:
    """All log-probabilities where one sequence carries loss, and the tokens there."""
    single = EncodedGroup(group.id, (group.sequences[number],), group.pixels)
    (batch,) = make_collator(assistant, share_prefixes=False)([single])
    return assistant.model(batch)[batch.target_logit].log_softmax(-1), batch.target_ids


@pytest.mark.parametrize("divergence", ["jensen_shannon", "reverse_kl"])
@pytest.mark.parametrize("teacher", ["frozen", "live"])
@pytest.mark.parametrize("shared", [True, False])
def test_the_loss_is_that_of_both_alone(
    divergence: Divergence, teacher: Teacher, shared: bool
) -> None:
    policy, groups = prepared()
    start = copy.deepcopy(policy)
    objective = SelfDistillation(divergence=divergence, teacher=teacher, top_k=10_000, clip=1.1)
    objective.prepare(policy.model)
    moved(policy.model)
    teaching = start if teacher == "frozen" else policy
    total, count = torch.zeros((), dtype=torch.float64), 0
    for group in groups:
        for student, told in group.pairs:
            p, ids = alone(policy, group, student)
            with torch.no_grad():
                q, _ = alone(teaching, group, told)
                sampled, _ = alone(start, group, student)
            m = ((p.exp() + q.exp()) / 2).log()
            if divergence == "jensen_shannon":
                total = total + 0.5 * (p.exp() * (p - m) + q.exp() * (q - m)).sum()
            else:
                own, was, wanted = (x.gather(1, ids[:, None])[:, 0] for x in (p, sampled, q))
                ratio = (own - was).exp().clamp(max=1.1)
                total = total - (ratio * (wanted - own).detach()).sum()
            count += len(ids)
    total.backward()
    expected = {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}
    policy.model.zero_grad()
    outputs = [
        objective(policy.model, batch)
        for batch in make_collator(policy, share_prefixes=shared)(groups)
    ]
    found = sum((o.loss_sum for o in outputs), torch.zeros((), dtype=torch.float64))
    assert sum(float(o.count) for o in outputs) == count > 0
    torch.testing.assert_close(found, total, rtol=1e-5, atol=1e-6)
    found.backward()
    for name, parameter in policy.model.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_the_student_follows_its_frozen_teacher() -> None:
    assistant, groups = prepared()
    objective = SelfDistillation(top_k=5)
    objective.prepare(assistant.model)
    (batch,) = make_collator(assistant)(groups)
    optimizer = torch.optim.Adam(assistant.model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        output = objective(assistant.model, batch)
        optimizer.zero_grad()
        (output.loss_sum / output.count).backward()
        optimizer.step()
        losses.append(float(output.loss_sum / output.count))
    assert losses[-1] < 0.1 * losses[0]


def test_student_and_teacher_share_the_image_and_the_question() -> None:
    assistant, groups = prepared()
    (batch,) = make_collator(assistant)(groups[:1])
    lengths = [len(sequence.input_ids) for sequence in groups[0].sequences]
    assert int((batch.subtree_end > 0).sum()) < sum(lengths)
    student, teacher = (assistant.processor.paint(s) for s in groups[0].sequences[:2])
    assert CONDITION.target("best") in teacher and CONDITION.target("best") not in student


def test_the_teacher_may_be_told_the_feedback_on_the_response_itself() -> None:
    assistant, _ = prepared()
    encoder = SelfDistillationEncoder(
        processor=assistant.processor, condition=CONDITION, told="feedback"
    )
    sample = next(s for s in SAMPLES if s.dialogues[0].turns[-1].feedback)
    feedback = sample.dialogues[0].turns[-1].feedback
    assert feedback is not None
    encoded = encoder(sample, epoch=0)
    assert CONDITION.text(feedback) in assistant.processor.paint(encoded.sequences[1])
    silent = Sample("s", sample.images, (Dialogue((Turn("What?", "That."),)),))
    with pytest.raises(Reject, match="no feedback"):
        encoder(silent, epoch=0)
