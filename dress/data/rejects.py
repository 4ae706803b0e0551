"""One rule for bad data: count it by reason and file, show it, and end the run above a limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from dress.errors import InputError


class Reject(Exception):
    """A record that cannot be used: a short reason to count by, where it lies, and the detail."""

    def __init__(self, reason: str, *, key: str = "", where: str = "", detail: str = "") -> None:
        super().__init__(reason, key, where, detail)
        self.reason, self.key, self.where, self.detail = reason, key, where, detail

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.reason, self.key, self.where, self.detail)

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.where or '?'}, key {self.key or '?'}: {self.reason}{detail}"

    def at(self, *, where: str, key: str) -> Reject:
        """Fill in the place where it is not known yet."""
        return Reject(
            self.reason, key=self.key or key, where=self.where or where, detail=self.detail
        )


class Rejects:
    """Count rejected groups against a limit: a number of groups, or below 1 a share of those seen.

    A share is judged once `grace` groups were seen, so that one early reject is not 100 percent.
    """

    def __init__(self, *, max_rejects: int | float = 0, grace: int = 1000) -> None:
        if max_rejects < 0:
            raise InputError(f"data.max_rejects is {max_rejects}: give 0, a count or a share < 1.")
        self.max_rejects, self.grace = max_rejects, grace
        self.groups_seen = 0
        self.by_reason: Counter[str] = Counter()
        self.by_file: Counter[str] = Counter()
        self.first: Reject | None = None

    @property
    def count(self) -> int:
        return self.by_reason.total()

    @property
    def limit(self) -> float:
        if 0 < self.max_rejects < 1:
            return self.max_rejects * max(self.groups_seen, self.grace)
        return float(self.max_rejects)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        first = self.first
        return {
            "seen": self.groups_seen,
            "by_reason": self.by_reason,
            "by_file": self.by_file,
            "first": [first.reason, first.key, first.where, first.detail] if first else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.groups_seen = state["seen"]
        self.by_reason, self.by_file = Counter(state["by_reason"]), Counter(state["by_file"])
        self.first = _rebuild(*state["first"]) if state["first"] else None

    def seen(self, groups: int = 1) -> None:
        self.groups_seen += groups

    def add(self, where: str, key: str, reason: str, detail: str = "") -> None:
        """Count one rejected group; raise InputError when that is one too many."""
        self.by_reason[reason] += 1
        self.by_file[where] += 1
        self.first = self.first or Reject(reason, key=key, where=where, detail=detail)
        if self.count > self.limit:
            raise InputError(
                f"{self.count} of {max(self.groups_seen, self.count)} groups were rejected, first "
                f"{self.first}: repair the data or raise data.max_rejects (now {self.max_rejects})."
            )


def _rebuild(reason: str, key: str, where: str, detail: str) -> Reject:
    return Reject(reason, key=key, where=where, detail=detail)
