"""Projectors: the patch tokens of a tower to as many embeddings of the language model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


def linear_projector(in_dim: int, out_dim: int) -> nn.Module:
    return nn.Linear(in_dim, out_dim)


def mlp_projector(
    in_dim: int,
    out_dim: int,
    hidden_dim: int | None = None,
    depth: int = 2,
    activation: Literal["gelu", "linear"] = "gelu",
    bias: bool = True,
    norm: bool = False,
    newline: bool = False,
) -> nn.Module:
    """Build `depth` linear layers with GELU between them, as in LLaVA-1.5 (arXiv 2310.03744).

    With the activation `linear` nothing is between them. With `norm` a layer norm stands before
    them, as in InternVL (arXiv 2312.14238). With `newline` a token of its own follows each picture,
    as in LLaVA-OneVision (arXiv 2408.03326).
    """
    assert depth >= 1
    widths = [in_dim, *[hidden_dim or out_dim] * (depth - 1), out_dim]
    layers: list[nn.Module] = []
    for width, next_width in pairwise(widths):
        between = nn.GELU() if activation == "gelu" else nn.Identity()
        layers += [nn.Linear(width, next_width, bias=bias), between]
    projector = nn.Sequential(*layers[:-1])
    if norm:
        first = {"norm": nn.LayerNorm(in_dim)}
        projector = nn.Sequential(OrderedDict(first | dict(projector.named_children())))
    return EndedProjector(projector, dim=out_dim) if newline else projector


class EndedProjector(nn.Sequential):
    """Put one learned token behind the projected patches of each picture."""

    def __init__(self, layers: nn.Sequential, *, dim: int) -> None:
        super().__init__(OrderedDict(layers.named_children()))
        self.newline = nn.Parameter(torch.randn(dim) / dim**0.5)

    def forward(
        self, patches: Float[Tensor, "image patch dim"]
    ) -> Float[Tensor, "image token wide"]:
        end = self.newline.expand(len(patches), 1, -1)
        return torch.cat([super().forward(patches), end], dim=1)


PROJECTORS: Mapping[str, Callable[..., nn.Module]] = {
    "linear": linear_projector,
    "mlp": mlp_projector,
}
