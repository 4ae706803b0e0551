"""Losses per objective: of responses to a first question, and of those to a later turn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small import feedback_samples, make_assistant, make_collator, with_an_earlier_turn

from dress.chat.encoders import CritiqueEncoder
from dress.objectives.calibration import (
    calibration_curve,
    calibration_error,
    calibration_sums,
)
from dress.objectives.conditional_lm import ConditionalLM
from dress.types import Dialogue, LossOutput
from lit_modules.totals import figures, means


def test_the_parts_are_the_losses_of_the_turns_alone() -> None:
    samples = [with_an_earlier_turn(sample) for sample in feedback_samples(2)]
    firsts = [
        replace(s, dialogues=tuple(Dialogue(d.turns[:1]) for d in s.dialogues)) for s in samples
    ]
    assistant = make_assistant(samples)
    collator = make_collator(assistant)

    def loss(group, turns="all") -> LossOutput:
        encoder = CritiqueEncoder(
            processor=assistant.processor,
            condition=assistant.condition,
            seed=0,
            loss_turns=turns,
        )
        (batch,) = collator([encoder(sample, epoch=0) for sample in group])
        with torch.no_grad():
            return ConditionalLM()(assistant.model.eval(), batch)

    both, first, last = loss(samples), loss(firsts), loss(samples, "last")
    assert first.count > 0 and last.count > 0 and first.count + last.count == both.count
    shown = {
        n: float(v)
        for n, v in means({n: float(v) for n, v in figures(both).items()}, "val").items()
    }
    assert shown["val/critique_loss"] == pytest.approx(
        float(first.loss_sum / first.count), rel=1e-4
    )
    assert shown["val/refinement_loss"] == pytest.approx(
        float(last.loss_sum / last.count), rel=1e-4
    )
    assert set(shown) == {
        "val/loss",
        "val/token_accuracy",
        "val/critique_loss",
        "val/refinement_loss",
    }
    # a part that is nothing, or all there is, is not shown beside the loss
    alone = means({n: float(v) for n, v in figures(first).items()}, "val")
    assert set(alone) == {"val/loss", "val/token_accuracy"}


def test_a_reward_model_that_is_sure_of_all_pairs_has_a_calibration() -> None:
    """All pairs lie in one bin, half of them wrong: sigmoid(4) - 1/2 from right."""
    margin = torch.tensor([4.0, -4.0, 4.0, -4.0])
    sums = {name: float(value) for name, value in calibration_sums(margin).items()}
    curve = calibration_curve(means({"loss": 1.0, "count": 4.0, **sums}, "val"))
    assert curve == [(pytest.approx(0.98201, abs=1e-5), 0.5, 1.0)]
    assert calibration_error(curve) == pytest.approx(0.48201, abs=1e-5)


def test_a_metric_is_divided_by_its_own_count() -> None:
    totals = {"loss": 12.0, "count": 6.0, "right": 3.0, "part": 8.0, "part_count": 2.0}
    assert means(totals, "t") == {"t/loss": 2.0, "t/right": 0.5, "t/part": 4.0}
