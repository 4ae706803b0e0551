"""LLaVA-Human-Preference-10K: two responses to the end of a conversation, one preferred by people.

https://huggingface.co/datasets/zhiqings/LLaVA-Human-Preference-10K (LLaVA-RLHF, arXiv 2309.14525)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dress.data.sources.facts_source import FactsSource
from dress.data.sources.fields import Fields, conversation
from dress.data.sources.row_source import Content
from dress.data.sources.source import Part
from dress.records import Dialogue, whole_number


class LlavaPreferenceSource(FactsSource):
    """Both outputs are `candidates`, in the order of the file; `instructions` have the preferred.

    `annotations.scores` is 1 for the preferred one and 0 for the other. There is no part
    `captions`, and no feedback in words: an annotator may write it.
    """

    name = "preference"

    def read(self, part: Part, fields: Fields) -> Content:
        names = self.image_names(fields)
        *earlier, last = conversation(fields, num_images=len(names))
        outputs = [_output(fields, name) for name in ("output_1", "output_2")]
        preferred = _preferred(fields)
        annotations: dict[str, Any] = {"task": "preference", "reference": outputs[preferred]}
        if isinstance(hallucination := fields.row.get("hallucination"), bool):
            annotations["hallucination"] = hallucination
        annotations |= self.facts(names, fields)
        if part == "candidates":
            annotations["scores"] = [float(number == preferred) for number in range(2)]
        responses: Mapping[Part, list[str | None]] = {
            "captions": [],
            "candidates": [*outputs],
            "instructions": [outputs[preferred]],
            "prompts": [None],
        }
        found = (Dialogue((*earlier, replace(last, model=text))) for text in responses[part])
        return tuple(found), annotations


def _output(fields: Fields, name: str) -> str:
    value = fields.row.get(name)
    return fields.as_text(value.get("value") if isinstance(value, Mapping) else value, name)


def _preferred(fields: Fields) -> int:
    """Return 0 or 1 for a preference of 1 or 2."""
    value = fields.row.get("preference")
    if (number := whole_number(value)) not in (1, 2):
        raise fields.reject(f"preference is {value!r:.40}, not 1 or 2")
    return number - 1
