"""Read one row of LVLM_NLF; every complaint names the file, the line and the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dress.errors import Reject
from dress.records import RATINGS, Feedback, Judgement, Turn, whole_number

CRITIQUE_KEYS = ("critique NLF", "critique_NLF")  # as released; as others write it


class Row:
    """The fields of a row; reading one that is not as it should be raises Reject."""

    def __init__(self, row: Mapping[str, Any], *, where: str, key: str) -> None:
        self.row, self.where, self.key = row, where, key

    @property
    def image_id(self) -> str:
        return self._text(self.row, "image_id", "image_id")

    @property
    def sample_id(self) -> str:
        """What we write into our own files so that ids stay; the released rows have none."""
        value = self.row.get("sample_id")
        return value if isinstance(value, str) else ""

    @property
    def captions(self) -> list[str]:
        """Accept text or a list of texts, also none at all."""
        value = self.row.get("caption")
        texts = value if isinstance(value, list) else [value]
        return [text.strip() for text in texts if isinstance(text, str) and text.strip()]

    def turns(self, aspect: str) -> tuple[Turn, ...]:
        """Return the dialogue, the refinement of each response being what the user says next."""
        records = self.row.get("interaction")
        if not isinstance(records, list) or not records:
            raise self._reject("interaction is not a list of at least one turn")
        if not all(isinstance(record, dict) for record in records):
            raise self._reject("interaction holds something that is not an object")
        fields = [f"interaction[{index}]" for index in range(len(records))]
        users = [self._text(r, "user", f"{f}.user") for r, f in zip(records, fields, strict=True)]
        return tuple(
            Turn(
                user=user,
                model=self._text(record, "model", f"{field}.model"),
                feedback=Feedback({aspect: self._judgement(record, field, refinement)}),
            )
            for record, field, user, refinement in zip(
                records, fields, users, [*users[1:], ""], strict=True
            )
        )

    def _judgement(self, record: Mapping[str, Any], field: str, refinement: str) -> Judgement:
        name = next((name for name in CRITIQUE_KEYS if name in record), CRITIQUE_KEYS[0])
        critique = self._text(record, name, f"{field}.{name!r}")
        rating = self._rating(record.get("rating"), f"{field}.rating")
        return Judgement(rating=rating, critique=critique, refinement=refinement)

    def _rating(self, value: Any, field: str) -> int:
        if (rating := whole_number(value)) not in RATINGS:
            raise self._reject(f"{field} is {value!r:.40}, not a whole number from 1 to 4")
        return rating

    def _text(self, record: Mapping[str, Any], name: str, field: str) -> str:
        value = record.get(name)
        if not isinstance(value, str) or not value.strip():
            raise self._reject(f"{field} is {value!r:.40}, not a text")
        return value.strip()

    def _reject(self, fault: str) -> Reject:
        return Reject("invalid row", key=self.key, where=self.where, detail=fault)
