"""LLaVA-Instruct: conversations about images, and text-only ones, in LLaVA's JSON format.

https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K; the captions of LLaVA-Pretrain have
the same format.
"""

from __future__ import annotations

from dataclasses import replace

from dress.data.sources.fields import Fields, conversation
from dress.data.sources.row_source import Content, RowSource
from dress.data.sources.source import Part
from dress.types import Dialogue


class LlavaInstructSource(RowSource):
    """A conversation is one dialogue; `prompts` keep its first question.

    `captions` are the conversations of one exchange about an image.
    """

    name = "llava"

    def read(self, part: Part, fields: Fields) -> Content:
        images = self.image_names(fields)
        turns = conversation(fields, num_images=len(images))
        annotations = {"task": "instruction", "reference": turns[0].model}
        if part == "captions" and (len(turns) > 1 or not images):
            return (), annotations
        if part == "prompts":
            turns = (replace(turns[0], model=None),)
        return (Dialogue(turns),), annotations
