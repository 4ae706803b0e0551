"""DPO with cached reference log-probabilities is DPO with the reference in the step (float64)."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from small import make_collator
from test_dpo import LAYOUTS, VARIANTS, gradients, moved, one_thread, prepared

from datamodules.reference_cache import log_probs
from dress.modeling.reference import ReferenceLogProbs

assert one_thread  # a fixture that pytest finds by this import


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_cached_reference_is_that_of_the_step(variant: str, tmp_path: Path) -> None:
    """Noted in one layout and in another order, kept in a file, read in every layout."""
    policy, groups = prepared("crop" if variant == "mdpo" else "none")
    policy.model.eval()
    cached = copy.copy(VARIANTS[variant])
    noted = ReferenceLogProbs()
    for batch in make_collator(policy, share_prefixes=False, rows_per_batch=2)(groups[::-1]):
        with torch.no_grad():
            noted.add(batch, log_probs(policy.model, batch))
    noted.save(tmp_path)
    cached.prepare(policy.model, cached=lambda: ReferenceLogProbs.load(tmp_path))
    in_step = copy.copy(VARIANTS[variant])
    in_step.prepare(policy.model)
    moved(policy.model)
    for layout in LAYOUTS:
        outcomes = []
        for objective in (in_step, cached):
            batches = make_collator(policy, **layout)(groups)
            outputs = [objective(policy.model, batch) for batch in batches]
            loss = sum((output.loss_sum for output in outputs), torch.zeros(()).double())
            loss.backward()
            metrics = {n: sum(float(o.metrics[n]) for o in outputs) for n in outputs[0].metrics}
            outcomes.append((loss.detach(), metrics, gradients(policy.model)))
        (loss, metrics, found), (expected, wanted_metrics, wanted) = outcomes
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
        assert metrics == pytest.approx(wanted_metrics, rel=1e-9) and metrics["kl"] > 0
        assert found.keys() == wanted.keys()
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-12)
