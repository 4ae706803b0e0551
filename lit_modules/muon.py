"""Muon for the hidden matrices, AdamW for everything else, as one optimizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Muon, Optimizer

from dress.distributed import share
from dress.settings import Amount, Share, checked


class BatchedMuon(Muon):
    """torch's Muon, which orthogonalises all matrices of one shape at once, on CPUs in float32.

    torch computes in bfloat16. A CPU without units for it takes four times as long, and another
    one that has them rounds otherwise.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the matrices that have a gradient."""
        for group in self.param_groups:
            shapes = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    shapes[matrix.shape, matrix.device].append(matrix)
            for same in shapes.values():
                self._update(same, group)

    def _update(self, matrices: Sequence[Tensor], group: dict[str, Any]) -> None:
        momenta = []
        for matrix in matrices:
            assert matrix.grad is not None
            average = self.state[matrix].setdefault("momentum_buffer", matrix.grad.mul(0))
            average.lerp_(matrix.grad, 1 - group["momentum"])
            momenta.append(matrix.grad.lerp(average, group["momentum"]))
        directions = orthogonalized(
            torch.stack([m.full_tensor() if isinstance(m, DTensor) else m for m in momenta]),
            coefficients=group["ns_coefficients"],
            steps=group["ns_steps"],
            eps=group["eps"],
        )
        rows, columns = matrices[0].shape
        rate = group["lr"] * max(1.0, rows / columns) ** 0.5
        for matrix, direction in zip(matrices, directions, strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"])
            matrix.add_(share(direction.to(matrix.dtype), matrix), alpha=-rate)


def orthogonalized(
    matrices: Float[Tensor, "matrix row column"],
    *,
    coefficients: tuple[float, float, float],
    steps: int,
    eps: float,
) -> Float[Tensor, "matrix row column"]:
    """Bring all singular values near 1 by Newton-Schulz iterations of a quintic polynomial."""
    a, b, c = coefficients
    tall = matrices.shape[-2] > matrices.shape[-1]
    found = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    found = found.mT if tall else found
    found = found / found.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = found @ found.mT
        update = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        found = torch.baddbmm(found, update, found, beta=a)
    return found.mT if tall else found


class MuonAdamW(Optimizer):
    """Orthogonalise the momentum of groups marked `hidden`; AdamW updates the other groups.

    The update of a hidden matrix has spectral norm `muon_scale * lr`, times sqrt(rows / columns)
    where it has more rows than columns. Source: https://kellerjordan.github.io/posts/muon (2024).
    """

    @checked
    def __init__(
        self,
        params: Sequence[dict[str, Any]],
        *,
        lr: Amount,
        muon_scale: Amount,
        betas: Sequence[float] = (0.9, 0.95),
        momentum: Share = 0.95,
        weight_decay: Amount = 0.05,
    ) -> None:
        super().__init__(params, {})
        hidden = [group for group in self.param_groups if group.get("hidden")]
        others = [group for group in self.param_groups if not group.get("hidden")]
        self.parts: dict[str, Optimizer] = {}
        # a part shares its groups with this optimizer, so that a schedule reaches them
        if others:
            self.parts["adamw"] = AdamW(
                others, lr=lr, betas=(betas[0], betas[1]), weight_decay=weight_decay, fused=True
            )
        if hidden:
            self.parts["muon"] = BatchedMuon(
                hidden, lr=muon_scale * lr, momentum=momentum, weight_decay=weight_decay
            )
        self._share_groups()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts.values():
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state_dict[name])
        self._share_groups()

    def _share_groups(self) -> None:
        self.param_groups = [group for part in self.parts.values() for group in part.param_groups]
