"""Log-probabilities of all data under the model that training begins with, computed once."""

from __future__ import annotations

import torch

from datamodules.streaming import ShardDataModule
from dress.data.stream import Step
from dress.modeling.lvlm import LVLM
from dress.modeling.reference import ReferenceLogProbs
from dress.objectives.functional import target_log_probs
from dress.progress import Bar
from dress.types import TokenBatch


@torch.no_grad()
def reference_log_probs(
    model: LVLM, datamodule: ShardDataModule, *, device: torch.device, precision: str
) -> ReferenceLogProbs:
    """Run the model, as it is before training, over both splits."""
    was_training = model.training
    half = torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16-mixed")
    found = ReferenceLogProbs()
    model.eval().to(device)
    for steps in datamodule.in_order():
        assert steps.stop is not None
        with Bar("reference log-probabilities", total=steps.stop) as bar:
            for step in steps:
                assert isinstance(step, Step)  # made in this process
                for batch in (b.to(device) for b in step.batches):
                    with half:
                        found.add(batch, log_probs(model, batch))
                bar.update(step.groups)
    model.train(was_training)
    return found


def log_probs(model: LVLM, batch: TokenBatch) -> torch.Tensor:
    (found,) = model(batch, target_log_probs)
    return found
