"""What stops a run or one record: both tell a user in a sentence what to mend."""

from __future__ import annotations

LONGEST = 300  # characters of a key or a detail, which may be the data's own words


class InputError(ValueError):
    """A mistake in what the user gave: the message names the file or key and the remedy.

    It is printed as a sentence, without a traceback.
    """


class Reject(Exception):
    """A record that cannot be used: a short reason to count by, where it lies, and the detail."""

    def __init__(self, reason: str, *, key: str = "", where: str = "", detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.where, self.key = _printable(where), _printable(key[:LONGEST])
        self.detail = _printable(detail[:LONGEST])

    def __reduce__(self) -> tuple[object, ...]:
        return reject_of, tuple(self.fields)

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.where or '?'}, key {self.key or '?'}: {self.reason}{detail}"

    @property
    def fields(self) -> list[str]:
        """Everything that a Reject holds, as JSON."""
        return [self.reason, self.key, self.where, self.detail]

    def at(self, *, where: str, key: str) -> Reject:
        """Fill in the place where it is not known yet."""
        return Reject(
            self.reason, key=self.key or key, where=self.where or where, detail=self.detail
        )


def _printable(text: str) -> str:
    """Escape what a terminal or a log could not show, or would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reject_of(reason: str, key: str, where: str, detail: str) -> Reject:
    """Make a Reject from its `fields`."""
    return Reject(reason, key=key, where=where, detail=detail)
