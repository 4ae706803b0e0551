"""LLaVA-RLHF's prompts for PPO: first questions, some with an answer that a rule can check.

llava_ppo50k-aokvqa12k-vqa10k.json of https://huggingface.co/datasets/zhiqings/LLaVA-RLHF-Data
(arXiv 2309.14525): LLaVA-Instruct's rows with `caption_type` and `length_bonus`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dress.data.sources.facts_source import FactsSource
from dress.data.sources.fields import Fields, conversation
from dress.data.sources.row_source import Content
from dress.data.sources.source import Part
from dress.records import Dialogue, finite, whole_number

ANSWERS = {1: None, 2: "A", 3: "B", 4: "C", 5: "D", 6: "no", 7: "yes"}  # by caption_type
CHOICES = range(2, 6)


class LlavaPromptsSource(FactsSource):
    """The first question of each row: `prompts` leave it open, `instructions` have the answer.

    `annotations.answer` says what is right, `annotations.length_bonus` weighs the reward of
    brevity. With `captions` there are facts: captions, or for a choice among answers the rationales
    that the file lists under "aok_" and the name of the image.
    """

    name = "ppo"

    def read(self, part: Part, fields: Fields) -> Content:
        names = self.image_names(fields)
        first = conversation(fields, num_images=len(names))[0]
        given = fields.row.get("caption_type", 1)
        if (kind := whole_number(given)) not in ANSWERS:
            raise fields.reject(f"caption_type is {given!r:.40}, not 1 to 7")
        given = fields.row.get("length_bonus", 1.0)
        if (bonus := finite(given)) is None:
            raise fields.reject(f"length_bonus is {given!r:.40}, not a number")
        annotations: dict[str, Any] = {
            "task": "instruction",
            "reference": first.model,
            "answer": ANSWERS[kind],
            "length_bonus": bonus,
        }
        told = [f"aok_{name}" for name in names] if kind in CHOICES else names
        annotations |= self.facts(told, fields)
        if part not in ("prompts", "instructions"):
            return (), annotations
        turn = replace(first, model=None) if part == "prompts" else first
        return (Dialogue((turn,)),), annotations
