"""The fields of one row; every complaint names the file, the row and the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dress.errors import Reject


@dataclass(frozen=True)
class Fields:
    """A row, where it stands and the key of its sample; what is not as it should be is a Reject."""

    row: Mapping[str, Any]
    where: str
    key: str

    def text(self, name: str) -> str:
        return self.as_text(self.row.get(name), name)

    def as_text(self, value: Any, field: str) -> str:
        """Return a text without the blanks around it; it must hold something."""
        if not isinstance(value, str) or not value.strip():
            raise self.reject(f"{field} is {value!r:.40}, not a text")
        return value.strip()

    def as_object(self, value: Any, field: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self.reject(f"{field} is {value!r:.40}, not an object")
        return value

    def as_list(self, value: Any, field: str) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise self.reject(f"{field} is {value!r:.40}, not a list of at least one")
        return value

    def reject(self, fault: str, reason: str = "invalid row") -> Reject:
        return Reject(reason, key=self.key, where=self.where, detail=fault)
