"""Which turns of a dialogue carry loss."""

from __future__ import annotations

from typing import Literal, get_args

from dress.data.rejects import Reject
from dress.errors import InputError
from dress.types import RATINGS, Dialogue, Turn

LossTurns = Literal["all", "last", "improved"]


def check_loss_turns(rule: str) -> LossTurns:
    if rule not in get_args(LossTurns):
        raise InputError(f"loss_turns is {rule!r}: choose one of {', '.join(get_args(LossTurns))}.")
    return rule  # type: ignore[return-value]


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
