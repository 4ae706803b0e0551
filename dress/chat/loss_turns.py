"""Which turns of a dialogue carry loss."""

from __future__ import annotations

from typing import Literal

from dress.data.rejects import Reject
from dress.types import RATINGS, Dialogue, Turn

LossTurns = Literal["all", "last", "improved"]


def supervised_turns(dialogue: Dialogue, rule: LossTurns, *, key: str) -> tuple[int, ...]:
    """Return the indices of the turns with loss; Reject where a turn has no response.

    `improved` takes the turns after the first that are rated above the one before, or the best
    possible: what a revision can teach. A dialogue may have none.
    """
    turns = dialogue.turns
    if any(turn.model is None for turn in turns):
        raise Reject("no response", key=key, detail="a turn has nothing to learn from")
    if rule == "last":
        return (len(turns) - 1,)
    if rule == "all":
        return tuple(range(len(turns)))
    return tuple(i for i in range(1, len(turns)) if _improved(turns[i - 1], turns[i]))


def _improved(before: Turn, after: Turn) -> bool:
    if after.feedback is None or before.feedback is None:
        return False
    rating = after.feedback.mean_rating
    return rating > before.feedback.mean_rating or rating == max(RATINGS)
