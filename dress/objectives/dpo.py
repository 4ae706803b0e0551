"""Direct preference optimisation on pairs of responses, as Silkie trains on VLFeedback.

    L = - sum over pairs log sigmoid(beta * (log p(c)/q(c) - log p(r)/q(r)))

and mDPO's terms for images (arXiv 2406.11839), with a corrupted image m' in the place of m:

    - log sigmoid(beta * (log p(c|m)/q(c|m) - log p(c|m')/q(c|m')))
    - log sigmoid(beta * log p(c)/q(c))

with the policy p, the reference q (the model that training began with) and responses c, chosen,
and r, rejected, to the same prompt (arXiv 2305.18290; Silkie: arXiv 2312.10665).

Differences from Silkie and TRL:
1. all pairs of a prompt share one token tree, so that each response is computed once, not once
   for each pair it is in;
2. the mean is over the pairs of a whole step, however it is cut up;
3. the SFT term is the mean per token of each chosen response; TRL's is over those of a batch;
4. `kl` estimates KL(q || p) per token, without bias where responses were sampled from q.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from dress.errors import InputError
from dress.modeling.lvlm import LVLM
from dress.modeling.reference import Reference
from dress.objectives.functional import sequence_sums, target_log_probs
from dress.objectives.objective import LogProbs, Objective
from dress.settings import AboveZero, Amount, checked
from dress.types import LossOutput, Requires, TokenBatch

From = Literal["step", "cached"]
Variant = Literal["dpo", "ipo"]


def dpo_loss(
    ratio: Float[Tensor, " pair"], *, beta: float, label_smoothing: float = 0.0
) -> Float[Tensor, " pair"]:
    """DPO, `-log sigmoid(beta * ratio)` (arXiv 2305.18290, equation 7).

    `ratio` is log p(chosen)/q(chosen) - log p(rejected)/q(rejected), of sums over tokens, with
    policy p and reference q. `label_smoothing` is the assumed share of pairs that are the wrong
    way round (conservative DPO, https://ericmitchell.ai/cdpo.pdf).
    """
    right, wrong = logsigmoid(beta * ratio), logsigmoid(-beta * ratio)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


def ipo_loss(ratio: Float[Tensor, " pair"], *, beta: float) -> Float[Tensor, " pair"]:
    """IPO, `(ratio - 1 / (2 beta))^2`, of means over tokens (arXiv 2310.12036, equation 17)."""
    return (ratio - 1 / (2 * beta)) ** 2


class DPO(Objective):
    """Prefer the chosen response of each pair; the count is the number of pairs.

    `variant="ipo"` regresses the ratio of per-token means to 1 / (2 beta) instead;
    `sft_weight` adds the chosen response's negative log-likelihood per token. `image_term` weighs
    the preference for the true image, for which the datamodule has to corrupt some, and `anchor`
    the term that keeps the chosen response from losing probability. Rewards are
    `beta * log p/q`. With `reference="cached"` q is not run in training: its log-probabilities of
    all data are computed before.
    """

    requires: Requires = "preferences"

    @checked
    def __init__(
        self,
        *,
        beta: AboveZero = 0.1,
        variant: Variant = "dpo",
        label_smoothing: float = 0.0,
        sft_weight: Amount = 0.0,
        image_term: Amount = 0.0,
        anchor: Amount = 0.0,
        reference: From = "step",
    ) -> None:
        if not 0 <= label_smoothing < 0.5:
            raise InputError(
                f"objective.label_smoothing is {label_smoothing}: give a share from 0 to below 0.5."
            )
        if variant == "ipo" and label_smoothing:
            raise InputError("objective.label_smoothing is for variant=dpo: set it to 0 with ipo.")
        if variant == "ipo" and (image_term or anchor):
            raise InputError(
                "objective.image_term and objective.anchor are mDPO's, for variant=dpo: set them "
                "to 0 with ipo."
            )
        self.beta, self.variant, self.label_smoothing = beta, variant, label_smoothing
        self.sft_weight, self.reference = sft_weight, reference
        self.image_term, self.anchor = image_term, anchor
        self._reference_log_probs: LogProbs | None = None

    def prepare(self, model: nn.Module, /, *, cached: Callable[[], LogProbs] | None = None) -> None:
        if self.reference == "cached":
            assert cached is not None
            self._reference_log_probs = cached()
        else:
            run = Reference(model)
            self._reference_log_probs = lambda batch: run(model, batch, target_log_probs)[0]

    def __call__(self, model: nn.Module, batch: TokenBatch, /) -> LossOutput:
        assert self._reference_log_probs is not None, "prepare() comes before the first batch"
        batch = cast(LVLM, model).with_patches(batch)  # which policy and reference share
        before = self._reference_log_probs(batch)
        (now,) = model(batch, target_log_probs)
        drift = now.detach() - before
        sampled = torch.ones(batch.num_sequences, device=drift.device).to(drift)
        sampled = sampled.index_fill(0, batch.image_pairs[:, 1], 0.0)[batch.target_seq]

        lengths = sequence_sums(torch.ones_like(now), batch.target_seq, batch.num_sequences)
        divisor = lengths if self.variant == "ipo" else torch.ones_like(lengths)
        log_probs = sequence_sums(now, batch.target_seq, batch.num_sequences) / divisor
        start = sequence_sums(before, batch.target_seq, batch.num_sequences) / divisor
        chosen, rejected = batch.pairs.unbind(1)
        ratio = (log_probs - start)[chosen] - (log_probs - start)[rejected]
        losses = self._losses(ratio)
        if self.sft_weight:
            losses = losses - self.sft_weight * (log_probs * divisor / lengths)[chosen]

        metrics: dict[str, Tensor] = {}
        if self.image_term:
            shown, hidden = batch.image_pairs.unbind(1)
            if len(shown) != len(chosen):
                raise InputError(
                    "objective.image_term needs corrupted images: give "
                    "datamodule.encoder.corrupted=crop or blank."
                )
            seen = (log_probs - start)[shown] - (log_probs - start)[hidden]
            losses = losses + self.image_term * dpo_loss(seen, beta=self.beta)
            metrics["rewards/image_accuracy"] = (seen > 0).sum().to(seen.dtype)
        if self.anchor:
            kept = (log_probs - start)[chosen]
            losses = losses + self.anchor * dpo_loss(kept, beta=self.beta)

        rewards = self.beta * (log_probs - start).detach()
        margin = rewards[chosen] - rewards[rejected]
        return LossOutput(
            loss_sum=losses.sum(),
            count=losses.new_tensor(losses.shape[0]),
            metrics=metrics
            | {
                "rewards/chosen": rewards[chosen].sum(),
                "rewards/rejected": rewards[rejected].sum(),
                "rewards/margin": margin.sum(),
                "rewards/accuracy": (margin > 0).sum().to(margin.dtype),
                "log_probs/chosen": log_probs[chosen].detach().sum(),
                "log_probs/rejected": log_probs[rejected].detach().sum(),
                "kl": ((drift.expm1() - drift) * sampled).sum(),
                "kl_count": sampled.sum(),
            },
        )

    def _losses(self, ratio: Float[Tensor, " pair"]) -> Float[Tensor, " pair"]:
        if self.variant == "ipo":
            return ipo_loss(ratio, beta=self.beta)
        return dpo_loss(ratio, beta=self.beta, label_smoothing=self.label_smoothing)
