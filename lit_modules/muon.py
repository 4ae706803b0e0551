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

from dress.distributed import from_owners, place, share
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
            matrices = [matrix for matrix in group["params"] if matrix.grad is not None]
            momenta = self._momenta(matrices, momentum=group["momentum"])
            directions = orthogonalized_by_all(
                [m.full_tensor() if isinstance(m, DTensor) else m for m in momenta],
                coefficients=group["ns_coefficients"],
                steps=group["ns_steps"],
                eps=group["eps"],
            )
            for matrix, direction in zip(matrices, directions, strict=True):
                rows, columns = matrix.shape
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(share(direction.to(matrix.dtype), matrix), alpha=-rate)

    def _momenta(self, matrices: Sequence[Tensor], *, momentum: float) -> list[Tensor]:
        momenta = []
        for matrix in matrices:
            assert matrix.grad is not None
            average = self.state[matrix].setdefault("momentum_buffer", matrix.grad.mul(0))
            average.lerp_(matrix.grad, 1 - momentum)
            momenta.append(matrix.grad.lerp(average, momentum))
        return momenta


def orthogonalized_by_all(
    matrices: Sequence[Float[Tensor, "row column"]],
    *,
    coefficients: tuple[float, float, float],
    steps: int,
    eps: float,
) -> list[Float[Tensor, "row column"]]:
    """Orthogonalise matrices that every rank has: each rank does a part, and all get the whole."""
    rank, ranks = place()
    shapes = defaultdict(list)
    for index, matrix in enumerate(matrices):
        shapes[matrix.shape, matrix.device].append(index)
    found = [torch.empty_like(matrix, dtype=precision_of(matrix)) for matrix in matrices]
    owners = [0] * len(matrices)
    for same in shapes.values():
        for turn, index in enumerate(same):
            owners[index] = turn % ranks
        if own := same[rank::ranks]:
            stack = torch.stack([matrices[index] for index in own])
            directions = orthogonalized(stack, coefficients=coefficients, steps=steps, eps=eps)
            for index, direction in zip(own, directions, strict=True):
                found[index] = direction
    return from_owners(found, owners) if ranks > 1 else found


def precision_of(matrix: Tensor) -> torch.dtype:
    """Return the type in which a matrix is orthogonalised, whatever its own."""
    return torch.bfloat16 if matrix.is_cuda else torch.float32


def orthogonalized(
    matrices: Float[Tensor, "matrix row column"],
    *,
    coefficients: tuple[float, float, float],
    steps: int,
    eps: float,
) -> Float[Tensor, "matrix row column"]:
    """Bring all singular values near 1 by Newton-Schulz iterations of a quintic polynomial."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    found = matrices.to(precision_of(matrices))
    found = found.mT if tall else found
    found = found / found.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    rows, columns = found.shape[-2:]
    if found.dtype == torch.float32 and 2 * columns > 3 * rows:  # there it takes fewer products
        found = _factor(found @ found.mT, coefficients, steps) @ found
    else:
        a, b, c = coefficients
        for _ in range(steps):
            gram = found @ found.mT
            update = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            found = torch.baddbmm(found, update, found, beta=a)
    return found.mT if tall else found


def _factor(
    gram: Float[Tensor, "matrix row row"], coefficients: tuple[float, float, float], steps: int
) -> Float[Tensor, "matrix row row"]:
    """Multiply the factors of all iterations, which are polynomials of X X^T and so commute."""
    a, b, c = coefficients
    product = gram
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor @ product if step else factor
        if step + 1 < steps:
            gram = factor @ gram @ factor
    return product


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
