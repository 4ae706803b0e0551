"""A linear model, a regression objective and resumable batches for the Lightning tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from dress.types import LossOutput, Movable
from lit_modules.alignment import AlignmentModule


@dataclass(frozen=True)
class ToyBatch(Movable):
    inputs: Tensor  # [row dim]
    targets: Tensor  # [row]
    group_ids: tuple[str, ...]

    @property
    def num_sequences(self) -> int:
        return len(self.group_ids)


class ToyModel(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float64, dropout: float = 0.0) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(3, 4, dtype=dtype), nn.Dropout(0.5))
        self.tower.requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4, 1, dtype=dtype)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.dropout(self.tower(inputs))).squeeze(-1)


def squared_error(model: nn.Module, batch: ToyBatch) -> LossOutput:
    errors = model(batch.inputs) - batch.targets
    count = torch.tensor(float(errors.numel()), dtype=errors.dtype, device=errors.device)
    return LossOutput(
        loss_sum=errors.square().sum(),
        count=count,
        metrics={"absolute": errors.detach().abs().sum()},
    )


def make_rows(steps: int, rows: int, dtype: torch.dtype = torch.float64) -> list[ToyBatch]:
    generator = torch.Generator().manual_seed(5)
    return [
        ToyBatch(
            inputs=torch.randn(rows, 3, generator=generator).to(dtype),
            targets=torch.randn(rows, generator=generator).to(dtype),
            group_ids=tuple(f"g{step}.{row}" for row in range(rows)),
        )
        for step in range(steps)
    ]


def cut(batch: ToyBatch, sizes: list[int]) -> tuple[ToyBatch, ...]:
    """Split the rows of a batch into micro-batches of the given sizes."""
    inputs, targets = batch.inputs.split(sizes), batch.targets.split(sizes)
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    ids = [batch.group_ids[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    return tuple(map(ToyBatch, inputs, targets, ids))


class ResumableList(torch.utils.data.IterableDataset):
    """Yields batches, the first time from a position on; its length is that of a whole epoch."""

    def __init__(self, batches: list[Any], start: int) -> None:
        self.batches, self.start = batches, start

    def __iter__(self):
        start, self.start = self.start, 0
        return iter(self.batches[start:])

    def __len__(self) -> int:
        return len(self.batches)


class ToyData(L.LightningDataModule):
    def __init__(self, train: list[Any], val: list[Any] | None = None) -> None:
        super().__init__()
        self.train, self.val, self.start = train, val, 0

    def train_dataloader(self) -> Any:
        start, self.start = self.start, 0
        return torch.utils.data.DataLoader(ResumableList(self.train, start), batch_size=None)

    def val_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(ResumableList(self.val or [], 0), batch_size=None)

    def state_dict(self) -> dict[str, int]:
        # saved after the last step of an epoch, Lightning resumes at the start of the next
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.processed
        return {"start": done % len(self.train)}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.start = state_dict["start"]


def make_module(seed: int = 0, **options: Any) -> AlignmentModule:
    torch.manual_seed(seed)
    model = ToyModel(dtype=options.pop("dtype", torch.float64), dropout=options.pop("dropout", 0.0))
    objective = options.pop("objective", squared_error)
    options.setdefault("optimizer", lambda groups: torch.optim.AdamW(groups, lr=0.1))
    return AlignmentModule(model=model, objective=objective, **options)


def make_trainer(**options: Any) -> L.Trainer:
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    return L.Trainer(**(defaults | options))


def weights(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad])
