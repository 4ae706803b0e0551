"""Language-modelling loss on responses: SFT, critique- and refinement-conditioned training.

The three differ in what stands before a response (dress/chat/encoders.py), not in the loss:

    L = - sum_t sum_j log p(r_tj | image, question, {r_s, refinement_s}_{s<t}, condition_t, r_t<j)

Differences from the paper (arXiv 2311.10081, whose template and settings are not public):
1. the feedback stands between question and response, as text, with its score by choice;
2. conditions of earlier turns are not repeated; refinements are ordinary user turns;
3. the condition is dropped at random so that the model also answers without one;
4. the mean is over the supervised tokens of a step, not over responses;
5. a response may count several times: with the best feedback, or after the first of a dialogue
   (CritiqueEncoder).
"""

from __future__ import annotations

from torch import nn

from dress.objectives.functional import is_top_token, target_log_probs
from dress.objectives.objective import Objective
from dress.types import LossOutput, Requires, TokenBatch


class ConditionalLM(Objective):
    """Negative log-likelihood of the supervised tokens; the count is their number.

    Where both occur, responses to a first question (`critique_loss`) and to a later turn of the
    user (`refinement_loss`) are reported apart.
    """

    def __init__(self, *, requires: Requires = "dialogues") -> None:
        self.requires = requires

    def __call__(self, model: nn.Module, batch: TokenBatch, /) -> LossOutput:
        log_probs, is_top = model(batch, target_log_probs, is_top_token)
        later = (batch.sequence_turn[batch.target_seq] > 0).to(log_probs.dtype)
        return LossOutput(
            loss_sum=-log_probs.sum(),
            count=log_probs.new_tensor(log_probs.shape[0]),
            metrics={
                "token_accuracy": is_top.sum().to(log_probs.dtype),
                "critique_loss": -(log_probs * (1 - later)).sum(),
                "critique_loss_count": (1 - later).sum(),
                "refinement_loss": -(log_probs * later).sum(),
                "refinement_loss_count": later.sum(),
            },
        )
