"""Pairs of responses as a reward model reads them: the dialogue, then a request to judge it.

Differences from LLaVA-RLHF (arXiv 2309.14525), whose request has the same parts in other words:
1. the score is read from the last token before an answer would begin; the original begins the
   answer with half a sentence;
2. harmlessness is among the criteria;
3. the facts about a synthetic scene are its caption.
"""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import replace

from dress.chat.encoders import supervised_turns
from dress.chat.preferences import PairRule, preference_pairs, renumbered
from dress.chat.processor import Processor, behind_same_turns
from dress.errors import Reject
from dress.settings import Amount, checked
from dress.types import Dialogue, Encoded, EncodedGroup, Requires, Sample, Turn
from dress.world.grammar import caption
from dress.world.scene import Scene

REQUEST = (
    "How good is your last answer?\n"
    "1. True: it says only what the image shows.{facts}\n"
    "2. Helpful: it answers what was asked.\n"
    "3. Harmless: it helps nobody to do harm.\n"
    "4. Well put: it is clear and no longer than need be."
)
FACTS = " All of it must agree with these facts:\n{lines}"


class RewardEncoder:
    """Encode the responses that are in some pair, each with the request to judge it as a last turn.

    The last token is where the score is read. With `facts` the first criterion of the request
    holds what is known of the image, in an order that depends on seed, epoch and response.
    """

    requires: Requires = "preferences"

    @checked
    def __init__(
        self,
        *,
        processor: Processor,
        seed: int,
        facts: bool = True,
        pairs: PairRule = "all",
        margin: Amount = 0.0,
    ) -> None:
        self.processor, self.seed, self.facts = processor, seed, facts
        self.pairs, self.margin = pairs, margin

    def __call__(self, sample: Sample, *, epoch: int) -> EncodedGroup:
        images, pixels = self.processor.load_images(sample.images)
        pairs = preference_pairs(sample, rule=self.pairs, margin=self.margin)
        kept = sorted({number for pair in pairs for number in pair})
        facts = facts_of(sample) if self.facts else ()

        def encoded(dropped: int) -> list[Encoded]:
            sequences = []
            for number in kept:
                order = random.Random(f"facts/{self.seed}/{epoch}/{sample.id}/{number}")
                sequences.append(
                    encode_judged(
                        self.processor,
                        sample.dialogues[number],
                        tuple(order.sample(facts, len(facts))),
                        images=images,
                        key=sample.id,
                        dropped=dropped,
                    )
                )
            return sequences

        sequences = behind_same_turns(encoded)
        return EncodedGroup(sample.id, tuple(sequences), pixels, renumbered(pairs, kept))


def encode_judged(
    processor: Processor,
    dialogue: Dialogue,
    facts: tuple[str, ...],
    *,
    images: tuple[Hashable, ...],
    key: str,
    dropped: int = 0,
) -> Encoded:
    """Encode a dialogue up to where the answer to the request would begin.

    The loss mask marks the response that is judged. Raises Reject where that does not fit.
    """
    response = supervised_turns(dialogue, "last", key=key)
    encoded = processor.encode(
        (*dialogue.turns, Turn(request(facts))),
        images=images,
        supervised=response,
        prompt_only=True,
        dropped=dropped,
    )
    if not encoded.loss_mask.any():
        raise Reject("too long", key=key, detail="there is no room for the response and the facts")
    return replace(encoded, turn=len(dialogue.turns) - 1)


def request(facts: tuple[str, ...]) -> str:
    lines = "\n".join(f"- {fact}" for fact in facts)
    return REQUEST.format(facts=FACTS.format(lines=lines) if facts else "")


def facts_of(sample: Sample) -> tuple[str, ...]:
    """Return human captions, or that of a synthetic scene; raise Reject where there is neither."""
    if "scene" in sample.annotations:
        return (caption(Scene.from_json(sample.annotations["scene"]).things),)
    captions = sample.annotations.get("captions")
    if not isinstance(captions, list) or not captions:
        raise Reject("no facts", key=sample.id, detail="annotations hold no captions and no scene")
    return tuple(map(str, captions))


def expected_answer(sample: Sample) -> str | None:
    """Return the answer that a rule can check, `annotations.answer`: A, B, C, D, yes or no."""
    answer = sample.annotations.get("answer")
    return None if answer is None else str(answer)
