"""Which of the rated responses to a prompt make pairs, chosen and rejected, and their encoding."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable
from itertools import combinations
from typing import Any, Literal

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from dress.chat.encoders import supervised_turns
from dress.chat.processor import Processor, behind_same_turns
from dress.errors import Reject
from dress.settings import Amount, checked
from dress.types import Encoded, EncodedGroup, Requires, Sample

PairRule = Literal["all", "best_worst"]
Corruption = Literal["none", "crop", "blank"]
Pairs = tuple[tuple[int, int], ...]
MOST_KEPT = 0.2  # of an image that is cropped (mDPO, arXiv 2406.11839)


class PreferenceEncoder:
    """Encode the responses that are in some pair, each as one unconditioned sequence.

    The last turn of each dialogue is the response. A group without a pair gives no sequence.
    With `corrupted` each chosen response is encoded once more, behind an image that shows less:
    a piece of at most a fifth of it (`crop`) or nothing (`blank`), as mDPO's image term needs it.
    It is the same piece in every epoch, so that the reference may be computed once.
    """

    requires: Requires = "preferences"

    @checked
    def __init__(
        self,
        *,
        processor: Processor,
        seed: int = 0,
        pairs: PairRule = "all",
        margin: Amount = 0.0,
        corrupted: Corruption = "none",
    ) -> None:
        self.processor, self.pairs, self.margin = processor, pairs, margin
        self.corrupted, self.seed = corrupted, seed

    def __call__(self, sample: Sample, *, epoch: int) -> EncodedGroup:
        images, pixels = self.processor.load_images(sample.images)
        pairs = preference_pairs(sample, rule=self.pairs, margin=self.margin)
        kept = sorted({number for pair in pairs for number in pair})
        sequences = behind_same_turns(
            lambda dropped: [self._encode(sample, n, images, dropped=dropped) for n in kept]
        )
        pairs = renumbered(pairs, kept)
        if self.corrupted == "none":
            return EncodedGroup(sample.id, tuple(sequences), pixels, pairs)
        poorer = {image: (image, self.corrupted) for image in images}
        rng = random.Random(f"corrupt/{self.seed}/{sample.id}")
        for image, key in poorer.items():
            pixels[key] = corrupt(pixels[image], self.corrupted, rng)
        chosen = sorted({chosen for chosen, _ in pairs})
        twins = {number: len(sequences) + place for place, number in enumerate(chosen)}
        shown = tuple(poorer[image] for image in images)
        sequences += [
            self._encode(sample, kept[n], shown, dropped=sequences[n].dropped) for n in chosen
        ]
        image_pairs = tuple((number, twins[number]) for number, _ in pairs)
        return EncodedGroup(sample.id, tuple(sequences), pixels, pairs, image_pairs)

    def _encode(
        self, sample: Sample, number: int, images: tuple[Hashable, ...], *, dropped: int
    ) -> Encoded:
        dialogue = sample.dialogues[number]
        supervised = supervised_turns(dialogue, "last", key=sample.id)
        return self.processor.encode(
            dialogue.turns, images=images, supervised=supervised, dropped=dropped
        )


def corrupt(
    pixels: UInt8[Tensor, "height width 3"], corruption: Corruption, rng: random.Random
) -> UInt8[Tensor, "height width 3"]:
    """Keep a random piece of at most a fifth of the image, enlarged, or its mean colour alone."""
    height, width, _ = pixels.shape
    if corruption == "blank":
        mean = pixels.float().mean(dim=(0, 1), keepdim=True)
        return mean.round().to(torch.uint8).expand(height, width, 3)
    share = math.sqrt(rng.uniform(0, MOST_KEPT))
    rows, columns = max(1, int(share * height)), max(1, int(share * width))
    top, left = rng.randrange(height - rows + 1), rng.randrange(width - columns + 1)
    piece = pixels[top : top + rows, left : left + columns].permute(2, 0, 1)[None]
    return interpolate(piece, size=(height, width))[0].permute(1, 2, 0)


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
