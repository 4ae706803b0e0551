"""What the reference says of data that stays the same, computed once and kept in a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from dress.errors import InputError
from dress.files import replacing
from dress.types import TokenBatch

FILE = "log_probs.safetensors"


class ReferenceLogProbs:
    """One row of log-probabilities of supervised tokens for each group, by the group's id.

    A row holds those of the group's sequences one behind the other, as a batch does.
    """

    def __init__(self, rows: Mapping[str, Float[Tensor, " token"]] | None = None) -> None:
        self._rows = dict(rows or {})

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, batch: TokenBatch, log_probs: Float[Tensor, " target"]) -> None:
        """Keep what belongs to each group of a batch; raise InputError at an id seen before."""
        groups = batch.sequence_group[batch.target_seq]
        for number, name in enumerate(batch.group_ids):
            if name in self._rows:
                raise InputError(
                    f"two groups are called {name}: objective.reference=cached needs ids of their "
                    "own; use objective.reference=step."
                )
            self._rows[name] = log_probs[groups == number].cpu()

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " target"]:
        """Return the kept log-probabilities of a batch's targets, in its order."""
        rows = [self._rows[name] for name in batch.group_ids]
        kept = torch.cat([torch.empty(0), *rows]) if rows else torch.empty(0)
        assert len(kept) == len(batch.target_node), "the groups were encoded otherwise before"
        return kept.to(batch.input_ids.device)

    def save(self, folder: Path) -> None:
        with replacing(folder / FILE) as temporary:
            save_file(self._rows, temporary)

    @classmethod
    def load(cls, folder: Path) -> ReferenceLogProbs:
        return cls(load_file(folder / FILE))
