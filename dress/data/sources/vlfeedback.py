"""VLFeedback: four models' responses to a prompt, each rated by GPT-4V on three aspects.

https://huggingface.co/datasets/MMInstruction/VLFeedback (Silkie, arXiv 2312.10665)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from dress.data.sources.fields import Fields, without_markers
from dress.data.sources.row_source import Content, RowSource
from dress.data.sources.source import Part
from dress.errors import InputError
from dress.records import RATINGS, Dialogue, Feedback, Judgement, Turn, whole_number
from dress.settings import Whole, checked

ASPECT_OF = {
    "Helpfulness": "helpfulness",
    "Visual Faithfulness": "honesty",
    "Ethical Considerations": "harmlessness",
}
THEIR_RATINGS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class _Rated:
    """A response; a rating of None is one that is no number, such as N/A."""

    model: str
    response: str
    ratings: Mapping[str, int | None]
    rationales: Mapping[str, str]

    @property
    def known(self) -> list[int]:
        return [rating for rating in self.ratings.values() if rating is not None]

    @property
    def score(self) -> float | None:
        """The mean over aspects, on which the published pairs are built; None if one is missing."""
        return fmean(self.known) if len(self.known) == len(ASPECT_OF) else None


class VLFeedbackSource(RowSource):
    """Rated responses are `candidates` with feedback; `instructions` have the best-rated one.

    `scale` gives our rating 1-4 for each of theirs, 1-5. A response that is empty or has no
    numeric rating is left out; a row without any left is a Reject. `annotations.scores` keeps the
    mean of the original ratings, None where one is no number. There is no part `captions`.
    """

    name = "vlfeedback"

    @checked
    def __init__(
        self,
        *,
        root: str | None,
        file: str = "vlfeedback_80k.jsonl",
        images: str = "merged_images",
        scale: Sequence[int] = (1, 2, 2, 3, 4),
        limit: Whole | None = None,
    ) -> None:
        super().__init__(root=root, file=file, images=images, limit=limit)
        if len(scale) != len(THEIR_RATINGS) or not set(scale) <= set(RATINGS):
            raise InputError(f"source.scale is {list(scale)}: give five ratings from 1 to 4.")
        self.scale = dict(zip(THEIR_RATINGS, scale, strict=True))

    def image_names(self, fields: Fields) -> tuple[str, ...]:
        return (fields.text("img_path"),)

    def read(self, part: Part, fields: Fields) -> Content:
        prompt = without_markers(fields.text("prompt"), fields, num_images=1)
        every = [_rated(fields, c, f"completions[{i}]") for i, c in enumerate(_completions(fields))]
        usable = [r for r in every if r.response and r.known]
        if not usable:
            raise fields.reject("no response has a rating", "no rating")
        best = max(usable, key=lambda rated: (rated.score is not None, fmean(rated.known)))
        annotations: dict[str, Any] = {
            "task": str(fields.row.get("id", "")).rpartition("-")[0],
            "reference": best.response,
        }
        if part == "candidates":
            annotations |= {
                "models": [rated.model for rated in usable],
                "ratings": [dict(rated.ratings) for rated in usable],
                "scores": [rated.score for rated in usable],
                "left_out": len(every) - len(usable),
            }
        turns = {
            "captions": [],
            "candidates": [Turn(prompt, r.response, self._feedback(r)) for r in usable],
            "instructions": [Turn(prompt, best.response)],
            "prompts": [Turn(prompt)],
        }
        return tuple(Dialogue((turn,)) for turn in turns[part]), annotations

    def _feedback(self, rated: _Rated) -> Feedback:
        judged = {name: rating for name, rating in rated.ratings.items() if rating is not None}
        return Feedback(
            {
                ASPECT_OF[name]: Judgement(self.scale[rating], rated.rationales[name])
                for name, rating in judged.items()
            }
        )


def _completions(fields: Fields) -> list[Any]:
    """Accept a list of objects, as released, or an object of lists, as Hugging Face loads it."""
    value = fields.row.get("completions")
    if isinstance(value, Mapping):
        columns = {name: fields.as_list(v, f"completions.{name}") for name, v in value.items()}
        if len({len(column) for column in columns.values()}) != 1:
            raise fields.reject("completions has lists of different lengths")
        rows = zip(*columns.values(), strict=True)
        value = [dict(zip(columns, row, strict=True)) for row in rows]
    return fields.as_list(value, "completions")


def _rated(fields: Fields, completion: Any, field: str) -> _Rated:
    record = fields.as_object(completion, field)
    response = record.get("response")
    if not isinstance(response, str):
        raise fields.reject(f"{field}.response is {response!r:.40}, not a text")
    annotations = fields.as_object(record.get("annotations"), f"{field}.annotations")
    ratings, rationales = {}, {}
    for name in ASPECT_OF:
        place = f"{field}.annotations.{name!r}"
        judged = fields.as_object(annotations.get(name) or {}, place)
        ratings[name] = _rating(fields, judged.get("Rating"), place)
        rationale = judged.get("Rationale")
        rationales[name] = rationale.strip() if isinstance(rationale, str) else ""
    return _Rated(str(record.get("model", "")), response.strip(), ratings, rationales)


def _rating(fields: Fields, value: Any, field: str) -> int | None:
    if (rating := whole_number(value)) in THEIR_RATINGS:
        return rating
    try:
        is_number = not isinstance(value, bool) and math.isfinite(float(value))
    except OverflowError:  # a whole number of hundreds of digits
        is_number = True
    except (TypeError, ValueError):
        is_number = False
    if is_number:
        raise fields.reject(f"{field}.Rating is {value!r:.40}, not a whole number from 1 to 5")
    return None
