"""Self-distillation (SDPO): the model under a condition teaches itself to do without it.

    L = sum_t D( p(. | x, y_<t), q(. | x, c, y_<t) )

with the student p, which sees image and question x, the teacher q, which sees the condition c as
well, and a response y that the student has sampled (arXiv 2601.20802). D is the reverse
Kullback-Leibler divergence, estimated at the sampled tokens, or the generalised Jensen-Shannon
divergence over the teacher's most likely tokens and the rest.

Differences from the paper:
1. the condition may be the best feedback, not that on y: a DRESS model has learned which response
   deserves which feedback, so the feedback on y makes y more likely, not less;
2. responses are sampled once, from the model that training begins with (`rounds=N` samples anew);
   `clip` bounds how far the ratio of probabilities may weigh a token up;
3. the teacher is the model that training began with (`frozen`) or the student itself (`live`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dress.errors import InputError
from dress.modeling.head import Read
from dress.modeling.lvlm import LVLM
from dress.modeling.reference import Reference
from dress.objectives.functional import (
    chosen_log_probs,
    target_log_probs,
    top_ids,
    top_log_probs,
)
from dress.objectives.objective import LogProbs, Objective
from dress.settings import AboveZero, Positive, Share, checked
from dress.types import LossOutput, Requires, TokenBatch

Divergence = Literal["jensen_shannon", "reverse_kl"]
Teacher = Literal["frozen", "live"]


def reverse_kl_surrogate(
    log_probs: Float[Tensor, " token"],
    teacher: Float[Tensor, " token"],
    sampled: Float[Tensor, " token"],
    *,
    clip: float,
) -> Float[Tensor, " token"]:
    """Return a loss whose gradient estimates that of KL(p || q) without bias (up to `clip`).

    `log_probs` are log p of tokens that were drawn with the log-probabilities `sampled`, `teacher`
    is log q. The gradient of KL(p || q) is the mean over p of (log p - log q) grad log p.
    """
    advantages = (teacher - log_probs).detach()
    return -(log_probs - sampled).exp().clamp(max=clip) * advantages


def jensen_shannon(
    log_probs: Float[Tensor, "token kept"],
    teacher: Float[Tensor, "token kept"],
    *,
    alpha: float,
) -> Float[Tensor, " token"]:
    """Compute alpha KL(q || m) + (1 - alpha) KL(p || m) with m = alpha q + (1 - alpha) p.

    This is the generalised divergence of GKD (arXiv 2306.13649), over the tokens that were kept
    and one more that stands for all others.
    """
    p, q = (torch.cat([kept, _rest(kept)], dim=-1) for kept in (log_probs, teacher))
    weights = p.new_tensor([1 - alpha, alpha]).log()
    m = torch.stack([p + weights[0], q + weights[1]]).logsumexp(dim=0)
    towards_q = (q.exp() * (q - m)).sum(dim=-1)
    towards_p = (p.exp() * (p - m)).sum(dim=-1)
    return alpha * towards_q + (1 - alpha) * towards_p


def _rest(kept: Float[Tensor, "token kept"]) -> Float[Tensor, "token 1"]:
    """Return the log-probability of what was not kept, bounded where rounding leaves nothing."""
    rest = 1 - kept.exp().sum(dim=-1, keepdim=True)
    return rest.clamp(min=torch.finfo(kept.dtype).eps).log()


class SelfDistillation(Objective):
    """Move the model without a condition towards the model under it; the count is tokens.

    `top_k` and `alpha` are for `jensen_shannon`, `clip` is for `reverse_kl`.
    """

    requires: Requires = "feedback"

    @checked
    def __init__(
        self,
        *,
        divergence: Divergence = "jensen_shannon",
        alpha: Share = 0.5,
        top_k: Positive = 100,
        clip: AboveZero = 2.0,
        teacher: Teacher = "frozen",
    ) -> None:
        if not 0 < alpha < 1:
            raise InputError(f"objective.alpha is {alpha}: give a number between 0 and 1.")
        self.divergence, self.alpha, self.top_k = divergence, alpha, top_k
        self.clip, self.teacher = clip, teacher
        self._start: Reference | None = None

    def prepare(self, model: nn.Module, /, *, cached: Callable[[], LogProbs] | None = None) -> None:
        self._start = Reference(model)

    def __call__(self, model: nn.Module, batch: TokenBatch, /) -> LossOutput:
        assert self._start is not None, "prepare() comes before the first batch"
        batch = cast(LVLM, model).with_patches(batch)  # which student and teacher share
        student, teacher = paired_targets(batch)
        (start,) = self._start(model, batch, target_log_probs)
        if self.divergence == "reverse_kl":
            (now,) = model(batch, target_log_probs)
            told = start if self.teacher == "frozen" else now.detach()
            losses = reverse_kl_surrogate(
                now[student], told[teacher], start[student], clip=self.clip
            )
        else:
            likely, told_likely = self._taught(
                model, batch, partial(top_ids, k=self.top_k), partial(top_log_probs, k=self.top_k)
            )
            asked = batch.target_ids[:, None].repeat(1, 1 + likely.shape[1])
            asked[student, 1:] = likely[teacher]
            (found,) = model(batch, chosen_log_probs, tokens=asked)
            losses = jensen_shannon(found[student, 1:], told_likely[teacher], alpha=self.alpha)
            now, told = found[:, 0], start
        gap = (now[student] - told[teacher]).detach()
        drift = (now - start)[student].detach()
        return LossOutput(
            loss_sum=losses.sum(),
            count=losses.new_tensor(losses.shape[0]),
            metrics={"teacher_gap": gap.sum(), "kl": (drift.expm1() - drift).sum()},
        )

    def _taught(self, model: nn.Module, batch: TokenBatch, *reads: Read) -> tuple[Tensor, ...]:
        if self.teacher == "frozen":
            assert self._start is not None
            return self._start(model, batch, *reads)
        with torch.no_grad():
            return cast(tuple[Tensor, ...], model(batch, *reads))


def paired_targets(batch: TokenBatch) -> tuple[Int[Tensor, " token"], Int[Tensor, " token"]]:
    """Return where the tokens of each student stand among the targets, and those of its teacher."""
    order = batch.target_seq.argsort(stable=True)
    lengths = torch.bincount(batch.target_seq, minlength=batch.num_sequences)
    first = lengths.cumsum(0) - lengths
    student, teacher = batch.pairs.unbind(1)
    counts = lengths[student]
    within = torch.arange(int(counts.sum()), device=order.device)
    within = within - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return (
        order[first[student].repeat_interleave(counts) + within],
        order[first[teacher].repeat_interleave(counts) + within],
    )
