"""One rule for bad data: count it by reason and file, show it, and end the run above a limit."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from dress.errors import InputError, Reject, reject_of
from dress.settings import Amount, checked

SHOWN = 5  # rejects of one reason that are logged one by one

logger = logging.getLogger(__name__)


class Rejects:
    """Count rejected groups against a limit: a number of groups, or below 1 a share of those seen.

    A share is judged once `grace` groups were seen, so that one early reject is not 100 percent,
    and of at most `total` groups where these are read again and again.
    """

    @checked
    def __init__(
        self, *, max_rejects: Amount = 0, grace: int = 1000, total: int | None = None
    ) -> None:
        self.max_rejects, self.grace, self.total = max_rejects, grace, total
        self.groups_seen = 0
        self.retries = 0  # reads that succeeded only when tried again
        self.by_reason: Counter[str] = Counter()
        self.first: Reject | None = None
        self._once: dict[tuple[str, str], Reject] = {}

    @property
    def count(self) -> int:
        return self.by_reason.total()

    @property
    def limit(self) -> float:
        if 0 < self.max_rejects < 1:
            seen = min(self.groups_seen, self.total or self.groups_seen)
            return self.max_rejects * max(seen, self.grace)
        return float(self.max_rejects)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return {
            "seen": self.groups_seen,
            "by_reason": self.by_reason,
            "first": self.first.fields if self.first else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.groups_seen = state["seen"]
        self.by_reason = Counter(state["by_reason"])
        self.first = reject_of(*state["first"]) if state["first"] else None

    def seen(self, groups: int = 1) -> None:
        self.groups_seen += groups

    def add(self, where: str, key: str, reason: str, detail: str = "") -> None:
        """Count one rejected group; raise InputError when that is one too many."""
        self.by_reason[reason] += 1
        self.first = self.first or Reject(reason, key=key, where=where, detail=detail)
        if self.count > self.limit:
            raise InputError(
                f"{self.count} of {max(self.groups_seen, self.count)} groups were rejected, first "
                f"{self.first}: repair the data or raise data.max_rejects (now {self.max_rejects})."
            )
        if self.by_reason[reason] <= SHOWN:
            last = "; more of this kind are only counted" if self.by_reason[reason] == SHOWN else ""
            logger.warning(
                "rejected: %s%s", Reject(reason, key=key, where=where, detail=detail), last
            )

    def add_once(self, reject: Reject) -> None:
        """Count a group of a stream, which meets it again in every epoch and validation, once."""
        place = (reject.where, reject.key)
        if place not in self._once:
            self._once[place] = reject
            self.add(reject.where, reject.key, reject.reason, reject.detail)

    def state_dict(self) -> dict[str, Any]:
        """Return what was counted by `add_once`, as plain data."""
        rejects = [reject.fields for reject in self._once.values()]
        return {"groups_seen": self.groups_seen, "rejects": rejects}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.groups_seen = state["groups_seen"]
        for reason, key, where, detail in state["rejects"]:
            if (where, key) not in self._once:
                self._once[where, key] = Reject(reason, key=key, where=where, detail=detail)
                self.by_reason[reason] += 1
        self.first = self.first or next(iter(self._once.values()), None)

    def metrics(self) -> dict[str, float]:
        """Return data/rejects, the same by reason, and data/read_retries."""
        figures = {"data/rejects": float(self.count), "data/read_retries": float(self.retries)}
        for reason, count in sorted(self.by_reason.items()):
            name = re.sub(r"\W+", "_", reason).strip("_")
            figures[f"data/rejects/{name}"] = float(count)
        return figures
