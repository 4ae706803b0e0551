"""Both sides give the same loss on the same rows before they train: they do the same work."""

from __future__ import annotations

import sys

import torch
from cases import CASES, Case, samples
from ours import build, collator_of, encoder_of, processor_of
from peer import copy_weights, peer_data, peer_model, peer_processor
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from dress.objectives.conditional_lm import ConditionalLM


def losses(case: Case) -> tuple[float, float]:
    ours = build(Case(**vars(case) | {"lora": False}))
    theirs = peer_model(case, attention="eager")
    copy_weights(ours, theirs)
    processor = processor_of(ours, image_tokens=case.image_tokens)
    encode = encoder_of(case, processor)
    groups = [encode(sample, epoch=0) for sample in samples(case)[: case.groups_per_step]]
    (batch,) = collator_of(ours, image_tokens=case.image_tokens)(groups)
    data = peer_data(case)
    collate = DataCollatorForVisionLanguageModeling(peer_processor(case), completion_only_loss=True)
    rows = collate([data[i] for i in range(8)])
    with torch.no_grad():
        output = ConditionalLM()(ours, batch)
        theirs_loss = theirs(**rows).loss
    return float(output.loss_sum / output.count), float(theirs_loss)


if __name__ == "__main__":
    print(*losses(CASES[sys.argv[1]]))
