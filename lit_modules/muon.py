"""Muon for the hidden matrices, AdamW for everything else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import AdamW, Muon, Optimizer

from dress.settings import Amount, Share, checked


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
            self.parts["muon"] = Muon(
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
