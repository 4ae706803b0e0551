"""Projectors: tower features to the language model's embedding space."""

from __future__ import annotations

from itertools import pairwise

from torch import nn


def linear_projector(in_dim: int, out_dim: int) -> nn.Module:
    return nn.Linear(in_dim, out_dim)


def mlp_projector(
    in_dim: int, out_dim: int, hidden_dim: int | None = None, depth: int = 2
) -> nn.Module:
    """Build `depth` linear layers with GELU between them, as in LLaVA-1.5 (arXiv 2310.03744)."""
    assert depth >= 1
    widths = [in_dim, *[hidden_dim or out_dim] * (depth - 1), out_dim]
    layers: list[nn.Module] = []
    for width, next_width in pairwise(widths):
        layers += [nn.Linear(width, next_width), nn.GELU()]
    return nn.Sequential(*layers[:-1])
