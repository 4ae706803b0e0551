"""Choose which parts of a model train, and say how many weights that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from dress.errors import InputError
from dress.modeling.language import LanguageModel, token_embedding
from dress.modeling.lvlm import LVLM
from dress.modeling.specification import PARTS

SCALAR_HEAD = "scalar_head"


@dataclass(frozen=True)
class PartCount:
    part: str
    total: int
    trainable: int


@dataclass(frozen=True)
class TrainableReport:
    """Weights per part; printed as a table."""

    counts: tuple[PartCount, ...]

    @property
    def trainable(self) -> int:
        return sum(count.trainable for count in self.counts)

    def __str__(self) -> str:
        total = PartCount("all", sum(count.total for count in self.counts), self.trainable)
        lines = [f"{'part':<10}{'weights':>16}{'trainable':>16}"]
        lines += [f"{c.part:<10}{c.total:>16,}{c.trainable:>16,}" for c in (*self.counts, total)]
        return "\n".join(lines)


def part_parameters(model: LVLM) -> dict[str, list[nn.Parameter]]:
    """Split the parameters by part; "language" is the LM without its adapter."""
    named = list(model.language.named_parameters())
    head = model.scalar_head
    return {
        "vision": list(model.vision.parameters()),
        "projector": list(model.projector.parameters()),
        "language": [parameter for name, parameter in named if "lora_" not in name],
        "lora": [parameter for name, parameter in named if "lora_" in name],
        SCALAR_HEAD: list(head.parameters()) if head is not None else [],
    }


def set_trainable(model: LVLM, parts: Sequence[str]) -> TrainableReport:
    """Train exactly `parts`, freeze the rest and put what is frozen as a whole in eval.

    A scalar head always trains; the LM's own head, which is then of no use, does not unless it is
    the embeddings.
    """
    parameters = part_parameters(model)
    for part in parts:
        if part not in PARTS:
            raise InputError(
                f"model.trainable: {part!r} is not a part; choose among {list(PARTS)}."
            )
        if not parameters[part]:
            raise InputError(
                f"model.trainable: the model has no {part!r}; set model.language.lora."
            )
    trained = {*parts, SCALAR_HEAD} if model.scalar_head is not None else set(parts)
    for part, members in parameters.items():
        for parameter in members:
            parameter.requires_grad_(part in trained)
    if model.scalar_head is not None:
        rest_output_head(model.language)
    model.differs.update(trained)
    model.train(model.training)
    counts = (_count(part, members) for part, members in parameters.items() if members)
    return TrainableReport(tuple(counts))


def rest_output_head(language: LanguageModel) -> None:
    head = language.get_output_embeddings()
    if head is not None and head.weight is not token_embedding(language).weight:
        head.requires_grad_(False)


def _count(part: str, parameters: Sequence[nn.Parameter]) -> PartCount:
    total = sum(parameter.numel() for parameter in parameters)
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return PartCount(part, total, trainable)
