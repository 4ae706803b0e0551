"""Which of the rated responses to a prompt make pairs, chosen and rejected, and their encoding."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any, Literal

from dress.chat.encoders import supervised_turns
from dress.chat.processor import Processor
from dress.errors import Reject
from dress.settings import Amount, checked
from dress.types import EncodedGroup, Requires, Sample

PairRule = Literal["all", "best_worst"]
Pairs = tuple[tuple[int, int], ...]


class PreferenceEncoder:
    """Encode the responses that are in some pair, each as one unconditioned sequence.

    The last turn of each dialogue is the response. A group without a pair gives no sequence.
    """

    requires: Requires = "preferences"

    @checked
    def __init__(
        self, *, processor: Processor, pairs: PairRule = "all", margin: Amount = 0.0
    ) -> None:
        self.processor, self.pairs, self.margin = processor, pairs, margin

    def __call__(self, sample: Sample, *, epoch: int) -> EncodedGroup:
        images, pixels = self.processor.load_images(sample.images)
        pairs = preference_pairs(sample, rule=self.pairs, margin=self.margin)
        kept = sorted({number for pair in pairs for number in pair})
        sequences = tuple(
            self.processor.encode(
                sample.dialogues[number].turns,
                images=images,
                supervised=supervised_turns(sample.dialogues[number], "last", key=sample.id),
            )
            for number in kept
        )
        return EncodedGroup(sample.id, sequences, pixels, renumbered(pairs, kept))


def preference_pairs(sample: Sample, *, rule: PairRule, margin: float) -> Pairs:
    """Return the numbers of the dialogues chosen and rejected.

    A pair needs scores that differ, by `margin` at least, and responses that differ; `best_worst`
    considers the highest and the lowest score alone.
    """
    scores = {n: score for n, score in enumerate(response_scores(sample)) if score is not None}
    ranked = sorted(scores, key=lambda number: -scores[number])
    tried = combinations(ranked, 2) if rule == "all" else zip(ranked[:1], ranked[-1:], strict=True)
    texts = [dialogue.turns[-1].model for dialogue in sample.dialogues]
    return tuple(
        (chosen, rejected)
        for chosen, rejected in tried
        if scores[chosen] > scores[rejected]
        and scores[chosen] - scores[rejected] >= margin
        and texts[chosen] != texts[rejected]
    )


def renumbered(pairs: Pairs, kept: list[int]) -> Pairs:
    """Number pairs of dialogues by their places among the dialogues that are kept."""
    return tuple((kept.index(chosen), kept.index(rejected)) for chosen, rejected in pairs)


def response_scores(sample: Sample) -> tuple[float | None, ...]:
    """Return each dialogue's score, the higher the better; None where it is not rated in full.

    It is what `annotations.scores` says, such as the mean on a data set's own scale, else the mean
    rating over the aspects that any response of the group was judged on. Raises Reject where
    nothing is rated.
    """
    if (given := sample.annotations.get("scores")) is not None:
        fits = isinstance(given, list) and len(given) == len(sample.dialogues)
        if not fits or not all(map(_is_score, given)):
            raise Reject("invalid record", key=sample.id, detail="annotations.scores do not fit")
        return tuple(given)
    feedback = [dialogue.turns[-1].feedback for dialogue in sample.dialogues]
    aspects = {aspect for each in feedback if each for aspect in each.judgements}
    if not aspects:
        raise Reject("no feedback", key=sample.id, detail="pairs are made from rated responses")
    return tuple(
        each.mean_rating if each and each.judgements.keys() == aspects else None
        for each in feedback
    )


def _is_score(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (is_number and math.isfinite(value))
