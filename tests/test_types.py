from __future__ import annotations

from dress.types import Feedback, Judgement


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
