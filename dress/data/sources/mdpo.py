"""mDPO's pairs made of VLFeedback: a question in Vicuna's template, a better and a worse response.

https://github.com/luka-group/mDPO (arXiv 2406.11839)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dress.data.sources.fields import Fields, without_markers
from dress.data.sources.row_source import Content, RowSource
from dress.data.sources.source import Part
from dress.types import Dialogue, Turn

OPENING, CLOSING = "USER:", "ASSISTANT:"


class MdpoSource(RowSource):
    """The chosen and the rejected response are `candidates`; `instructions` have the chosen one.

    `annotations.scores` is 1 for the chosen one and 0 for the other. There is no part `captions`.
    """

    name = "mdpo"

    def image_names(self, fields: Fields) -> tuple[str, ...]:
        return (fields.text("img_path"),)

    def read(self, part: Part, fields: Fields) -> Content:
        question = without_markers(_question(fields), fields, num_images=1)
        chosen, rejected = fields.text("chosen"), fields.text("rejected")
        annotations: dict[str, Any] = {"task": "preference", "reference": chosen}
        if part == "candidates":
            annotations["scores"] = [1.0, 0.0]
        responses: Mapping[Part, list[str | None]] = {
            "captions": [],
            "candidates": [chosen, rejected],
            "instructions": [chosen],
            "prompts": [None],
        }
        return tuple(Dialogue((Turn(question, text),)) for text in responses[part]), annotations


def _question(fields: Fields) -> str:
    """Return what stands between the template's two marks."""
    prompt = fields.text("prompt")
    if [prompt.count(mark) for mark in (OPENING, CLOSING)] != [1, 1] or not prompt.endswith(
        CLOSING
    ):
        raise fields.reject(f"prompt is not one question from {OPENING!r} to {CLOSING!r}")
    return prompt.removesuffix(CLOSING).partition(OPENING)[2]
