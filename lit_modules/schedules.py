"""Learning-rate schedules."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dress.settings import Share, Whole, checked


@checked
def warmup_cosine(
    optimizer: Optimizer, *, warmup_steps: Whole, max_steps: int, final_lr: Share
) -> LambdaLR:
    """Rise linearly over `warmup_steps`, then fall as a cosine to the share `final_lr`."""
    warmup = min(warmup_steps, max(1, max_steps // 10))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, max_steps - warmup))
        return final_lr + (1 - final_lr) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)
