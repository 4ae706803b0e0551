from __future__ import annotations

import pytest

from dress.chat.encoders import supervised_turns
from dress.types import Dialogue, Feedback, Judgement, Turn
from tests.chat.tiny_chat import feedback


def dialogue(*ratings: int | None) -> Dialogue:
    return Dialogue(tuple(Turn("?", "!", feedback(r) if r else None) for r in ratings))


@pytest.mark.parametrize(
    ("ratings", "improved"),
    [
        ((2,), ()),
        ((4,), ()),
        ((2, 3), (1,)),
        ((3, 2), ()),
        ((2, 2, 4), (2,)),
        ((1, 3, 2, 3), (1, 3)),
        ((4, 4), (1,)),  # false feedback that changes nothing is a lesson too
        ((3, 3), ()),
        ((None, 4), ()),
        ((2, None), ()),
    ],
)
def test_improved_turns(ratings: tuple[int | None, ...], improved: tuple[int, ...]) -> None:
    assert supervised_turns(dialogue(*ratings), "improved", key="a") == improved
    assert supervised_turns(dialogue(*ratings), "all", key="a") == tuple(range(len(ratings)))
    assert supervised_turns(dialogue(*ratings), "last", key="a") == (len(ratings) - 1,)


@pytest.mark.parametrize(
    ("turns", "sound"),
    [
        ((("a", 2), ("b", 4)), (1,)),
        ((("a", 4), ("a", 4)), (0, 1)),
        ((("a", 2), ("a", 2)), (1,)),  # nothing was said that would call for a change
        ((("a", 2), ("b", 3)), ()),  # better, and faulty still
        ((("a", 2), ("b", 3), ("b", 3)), (2,)),
        ((("a", None), ("b", None)), ()),
    ],
)
def test_sound_turns_are_perfect_or_unchanged(
    turns: tuple[tuple[str, int | None], ...], sound: tuple[int, ...]
) -> None:
    said = tuple(Turn("?", text, feedback(r) if r else None) for text, r in turns)
    assert supervised_turns(Dialogue(said), "sound", key="a") == sound


@pytest.mark.parametrize(("said", "sound"), [("Look again.", ()), ("", (1,)), ("Count.", (1,))])
def test_a_fault_repeated_under_its_own_refinement_is_no_target(
    said: str, sound: tuple[int, ...]
) -> None:
    faulty = Feedback({"honesty": Judgement(2, "It is not so.", "Look again.")})
    turns = (Turn("What is it?", "A cat.", faulty), Turn(said, "A cat.", faulty))
    assert supervised_turns(Dialogue(turns), "sound", key="a") == sound
