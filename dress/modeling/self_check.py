"""What a language model permits, found out when it is built by comparing it with itself."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import Tensor

from dress.errors import InputError
from dress.modeling.alone import (
    OWN,
    PREFIX,
    Alone,
    error_line,
    name_of,
    refusal,
    sequences_alone,
    undisturbed,
)
from dress.modeling.decoding import decode
from dress.modeling.head import output_head
from dress.modeling.language import LanguageModel, token_embedding
from dress.modeling.tree_attention import Ways, failure, tree_supported

logger = logging.getLogger(__name__)


def ways_of(language: LanguageModel, *, generates: bool = True) -> Ways:
    """Return the fastest way in which each sequence has the logits that it has alone.

    A line of the log says what the model does without. InputError where no way is left, or where
    answers token by token have other logits, if it `generates`.
    """
    if output_head(language) is None:
        raise refusal(language, "has no output embedding")
    trees, reason = tree_supported(language)
    if token_embedding(language).weight.is_meta:  # nothing can be compared
        return Ways(trees=trees)
    with undisturbed(language):
        ways = _ways(language, sequences_alone(language), trees=trees, generates=generates)
    if not trees:
        message = "%s cannot run token trees (%s): rows are padded instead"
        logger.warning(message, name_of(language), reason)
    return ways


def _ways(language: LanguageModel, alone: Alone, *, trees: bool, generates: bool) -> Ways:
    if generates and (fault := _decoding_failure(language, alone)):
        raise refusal(language, f"cannot answer token by token ({fault})")
    ways = Ways(trees=trees)
    if failure(language, alone, ways):
        ways = replace(ways, trimmed=False)
        if not trees and (fault := failure(language, alone, ways)):
            raise refusal(language, f"cannot be run on rows of several sequences ({fault})")
    if fault := failure(language, alone, ways, head=False):
        message = "%s cannot run its head by itself (%s): all logits of a step are held at once"
        logger.warning(message, name_of(language), fault)
        ways = replace(ways, headless=False)
    return ways


def _decoding_failure(language: LanguageModel, alone: Alone) -> str:
    """Say how answers to two prompts, the shorter one padded on its left, fail, if they do.

    Both begin the first sequence. The longer is all that the two share and is continued as either;
    the shorter twice as the first.
    """
    ids, shorter = alone.ids, PREFIX - OWN
    prompts = torch.stack([ids[0, :PREFIX], ids[0, :PREFIX].roll(OWN)])
    mask = torch.ones_like(prompts, dtype=torch.bool)
    mask[1, :OWN] = False
    answers = ((0, PREFIX), (1, PREFIX), (0, shorter), (0, shorter))  # a sequence, where from
    steps: list[Tensor] = []

    def follow(logits: Tensor, _: Tensor) -> Tensor:
        steps.append(logits)
        return torch.stack([ids[sequence, end + len(steps) - 1] for sequence, end in answers])

    try:
        decode(
            language,
            embeds=token_embedding(language)(prompts),
            attention_mask=mask,
            copies=2,
            choose=follow,
            max_new_tokens=OWN,
            eos_token_id=-1,
            pad_token_id=0,
        )
    except InputError:
        raise
    except Exception as raised:
        return error_line(raised)
    places = [(sequence, end - 1 + step) for step in range(OWN) for sequence, end in answers]
    return alone.differ(torch.cat(steps), places)
