"""What decoding draws from is what the training forward gives: no gap between rollout and step."""

from __future__ import annotations

import pytest
import torch
from modeling_helpers import (
    EOS,
    GPT2,
    LLAMA,
    LORA,
    PAD,
    randomize_adapter,
    tiny_lvlm,
    tree_batch,
    words,
)

from dress.modeling.decoding import DrawnLogProbs, decode, sampler
from dress.objectives.functional import target_log_probs

PROMPT = [1, 10, 11, 12, 13]


@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_log_probs_of_a_rollout_are_those_of_training(config: dict, lora: dict | None) -> None:
    torch.set_float32_matmul_precision("highest")
    model = tiny_lvlm(config, lora=lora).eval()
    if lora:
        randomize_adapter(model)
    drawn = DrawnLogProbs()
    choose = sampler(rows=8, temperature=1.0, top_p=1.0, drawn=drawn)
    torch.manual_seed(0)
    with torch.no_grad():
        answers = decode(
            model.language,
            embeds=model.language.get_input_embeddings()(torch.tensor([PROMPT])),
            attention_mask=torch.ones(1, len(PROMPT), dtype=torch.bool),
            copies=8,
            choose=choose,
            max_new_tokens=12,
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
        compare(model, answers.tolist(), drawn.row_by_row(rows=8))


def compare(model, answers: list[list[int]], said: list[list[float]]) -> None:
    order = sorted(range(8), key=lambda row: answers[row])  # the helper wants depth-first rows
    answers, said = [answers[row] for row in order], [said[row] for row in order]
    ends = [a.index(EOS) + 1 if EOS in a else len(a) for a in answers]
    rows = [words(*PROMPT, *a[:end]) for a, end in zip(answers, ends, strict=True)]
    none = torch.zeros(0, 3, 16, 16)
    batch = tree_batch([rows], pixels=none, supervised_from=len(PROMPT))
    found = target_log_probs(model(batch), batch.target_logit, batch.target_ids)
    expected = [row[:end] for row, end in zip(said, ends, strict=True)]
    flat = torch.tensor([value for row in expected for value in row])
    assert len(flat) == len(found) > 30
    torch.testing.assert_close(found, flat, rtol=0, atol=2e-4)
