"""A reward model on pairs of responses, as LLaVA-RLHF trains it.

    L = sum over pairs -log sigmoid(r_c - r_r) + centring * |r_c + r_r|

with the scores r of the chosen and the rejected response (arXiv 2309.14525; the second term is in
its code alone, with the weight 0.001).

Differences from LLaVA-RLHF:
1. the centring term is taken per pair; the original's is that of the mean over a device's batch,
   which would depend on how a step is cut up;
2. all pairs of a prompt share one token tree, and each response is scored once.
"""

from __future__ import annotations

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from dress.modeling.lvlm import LVLM
from dress.objectives.calibration import calibration_sums
from dress.objectives.objective import Objective
from dress.settings import Amount, checked
from dress.types import LossOutput, Requires, TokenBatch


def reward_loss(
    chosen: Float[Tensor, " pair"], rejected: Float[Tensor, " pair"], *, centring: float
) -> Float[Tensor, " pair"]:
    """The negative log-likelihood of a Bradley-Terry model, and a pull of its scores to zero."""
    return -logsigmoid(chosen - rejected) + centring * (chosen + rejected).abs()


class PairwiseReward(Objective):
    """Score the chosen response of each pair above the other; the count is the number of pairs.

    Held-out pairs also show how well the model is calibrated.
    """

    requires: Requires = "preferences"

    @checked
    def __init__(self, *, centring: Amount = 1e-3) -> None:
        self.centring = centring

    def __call__(self, model: nn.Module, batch: TokenBatch, /) -> LossOutput:
        scores = cast(LVLM, model).scores(batch)
        chosen, rejected = scores[batch.pairs[:, 0]], scores[batch.pairs[:, 1]]
        margin = (chosen - rejected).detach()
        losses = reward_loss(chosen, rejected, centring=self.centring)
        return LossOutput(
            loss_sum=losses.sum(),
            count=losses.new_tensor(losses.shape[0]),
            metrics={
                "rewards/chosen": chosen.detach().sum(),
                "rewards/rejected": rejected.detach().sum(),
                "rewards/margin": margin.sum(),
                "rewards/accuracy": (margin > 0).sum().to(margin.dtype),
                **({} if model.training else calibration_sums(margin)),
            },
        )
