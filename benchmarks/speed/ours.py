"""One side of the comparison: this project's own module, loader and trainer, as jobs build them."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from cases import (
    CASES,
    CLIP,
    CONDITION,
    LEARNING_RATE,
    LORA,
    TEMPLATE,
    TOWER,
    Case,
    samples,
    tokenizer,
)
from segments import Segments, own_stdout

from datamodules.reference_cache import log_probs
from dress.chat.encoders import CritiqueEncoder, InstructionEncoder
from dress.chat.processor import Processor
from dress.data.collate import TreeCollator
from dress.data.rejects import Rejects
from dress.data.stream import Position, StepLoader, StepStream
from dress.modeling.build import build_model
from dress.modeling.lvlm import LVLM
from dress.modeling.reference import ReferenceLogProbs
from dress.modeling.trainable import set_trainable
from dress.objectives.conditional_lm import ConditionalLM
from dress.objectives.dpo import DPO
from dress.types import EncodedGroup, Sample, TokenBatch
from lit_modules.alignment import AlignmentModule


def build(case: Case) -> LVLM:
    """A tower of 4 layers (the fifth is dropped), an MLP and the LM, random from seed 0."""
    torch.manual_seed(0)
    tower = TOWER | {"image_size": case.image_px, "patch_size": case.patch, "layers": 5}
    model = build_model(
        {
            "vision": {
                "name": None,
                "pretrained": None,
                "config": tower,
                "image_size": case.image_px,
                "layer": -2,
                "random_init": True,
            },
            "projector": {"kind": "mlp"},
            "language": {
                "name": None,
                "config": dict(case.language),
                "random_init": True,
                "attention": "eager",
                "lora": LORA if case.lora else None,
            },
        },
        tokenizer=tokenizer(),
    )
    set_trainable(model, ["projector", "lora" if case.lora else "language"])
    return model


class Pairs:
    """Encode responses as sequences and pair the first with the second, and so on."""

    requires = "preferences"

    def __init__(self, processor: Processor) -> None:
        self.encode = InstructionEncoder(processor=processor)

    def __call__(self, sample: Sample, *, epoch: int) -> EncodedGroup:
        group = self.encode(sample, epoch=epoch)
        pairs = tuple((i, i + 1) for i in range(0, len(group.sequences), 2))
        return replace(group, pairs=pairs)


class Memory:
    """Samples in an order that is drawn anew for each epoch."""

    def __init__(self, kept: Sequence[Sample]) -> None:
        self.kept = kept

    def __len__(self) -> int:
        return len(self.kept)

    def fetch(self, index: int) -> tuple[Position, Sample]:
        epoch, place = divmod(index, len(self.kept))
        order = random.Random(epoch).sample(range(len(self.kept)), len(self.kept))
        return Position(index, epoch), self.kept[order[place]]

    def where(self, index: int) -> str:
        return "memory"


class Loaded(L.LightningDataModule):
    def __init__(self, loader: StepLoader) -> None:
        super().__init__()
        self.loader = loader

    def train_dataloader(self) -> StepLoader:
        return self.loader


class Timed(L.Callback):
    def __init__(self, segments: Segments) -> None:
        self.segments = segments

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Sequence[TokenBatch],
        batch_idx: int,
    ) -> None:
        computed = sum(micro.input_ids.numel() for micro in batch)
        note = self.segments.note
        note["computed_tokens"] = note.get("computed_tokens", 0) + computed
        trainer.should_stop = not self.segments.step()


def processor_of(model: LVLM, *, image_tokens: int) -> Processor:
    return Processor(
        tokenizer=tokenizer(),
        template=TEMPLATE,
        preprocess=model.vision.preprocess,
        num_image_tokens=image_tokens,
        max_length=1024,
    )


def encoder_of(case: Case, processor: Processor) -> Any:
    if case.objective == "dpo":
        return Pairs(processor)
    return CritiqueEncoder(processor=processor, condition=CONDITION, seed=0)


def collator_of(model: LVLM, *, image_tokens: int) -> TreeCollator:
    return TreeCollator(
        pad_token_id=model.pad_token_id,
        image_token_id=model.image_token_id,
        num_image_tokens=image_tokens,
        pad_to_multiple=32,
        one_row=True,
    )


def kept(model: LVLM, steps: StepStream, case: Case) -> ReferenceLogProbs:
    found = ReferenceLogProbs()
    with torch.no_grad():
        for number in range(case.groups // case.groups_per_step):
            for batch in steps.make(number).batches:
                found.add(batch, log_probs(model, batch))
    return found


def main(case: Case, *, epochs: int, cached: bool) -> None:
    reports = own_stdout()
    torch.set_float32_matmul_precision("highest")
    model = build(case)
    processor = processor_of(model, image_tokens=case.image_tokens)
    steps = StepStream(
        stream=Memory(samples(case)),  # type: ignore[arg-type]
        encoder=encoder_of(case, processor),
        collator=collator_of(model, image_tokens=case.image_tokens),
        groups_per_step=case.groups_per_step,
    )
    source = "cached" if cached else "step"
    objective = DPO(reference=source) if case.objective == "dpo" else ConditionalLM()
    objective.prepare(model, cached=lambda: kept(model, steps, case))
    module = AlignmentModule(
        model=model,
        objective=objective,
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True),
        gradient_clip=CLIP,
    )
    steps_per_turn = epochs * case.groups // case.groups_per_step
    segments = Segments(steps_per_segment=steps_per_turn, reports=reports)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        callbacks=[Timed(segments)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, Loaded(StepLoader(steps=steps, rejects=Rejects())))


if __name__ == "__main__":
    main(CASES[sys.argv[1]], epochs=int(sys.argv[2]), cached="cached" in sys.argv)
