"""A rating with the particulars behind it, before it is put into words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """`hints` name the kind of a fault, `reveals` the missing value too."""

    rating: int
    faults: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    reveals: tuple[str, ...] = ()


def plain_note(rating: int, *pairs: tuple[str, str]) -> Note:
    """Make a note of (fault, advice) pairs whose advice gives nothing away."""
    advice = tuple(advice for _, advice in pairs)
    return Note(rating, tuple(fault for fault, _ in pairs), advice, advice)
