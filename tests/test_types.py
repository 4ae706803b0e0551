from __future__ import annotations

from typing import Any

import pytest

from dress.records import whole_number
from dress.types import Feedback, Judgement


@pytest.mark.parametrize("written", [4, 4.0, "4", "4.0", " 4.00\n", "+4", "004"])
def test_a_whole_number_is_read_however_it_is_written(written: Any) -> None:
    assert whole_number(written) == 4 and type(whole_number(written)) is int


@pytest.mark.parametrize(
    "other",
    [
        *(4.5, "4.5", "4,0", "4.", "4e0", "0x4", "\N{FULLWIDTH DIGIT FOUR}", "9" * 5000, "four"),
        *("", True, False, None, [4], {"a": 4}, float("nan"), float("inf")),
    ],
)
def test_nothing_else_is_a_whole_number(other: Any) -> None:
    assert whole_number(other) is None


def test_a_refinement_joins_advice_in_the_order_of_the_aspects() -> None:
    feedback = Feedback(
        {
            "harmlessness": Judgement(2, "So.", "Say why."),
            "honesty": Judgement(4, "So.", "Nothing to add."),
            "helpfulness": Judgement(1, "So.", "Answer."),
        }
    )
    assert feedback.refinement == "Answer. Say why."
    assert not feedback.is_perfect


def test_advice_is_said_once_and_perfection_needs_none() -> None:
    twice = Feedback({a: Judgement(3, "So.", "Look again.") for a in ("helpfulness", "honesty")})
    assert twice.refinement == "Look again."
    perfect = Feedback({a: Judgement(4, "So.") for a in ("helpfulness", "honesty")})
    assert perfect.is_perfect and perfect.refinement == ""
