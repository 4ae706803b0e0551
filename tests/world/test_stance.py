"""Refusing, complying and helping are never taken for each other, whatever the wording."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dress.world import grammar
from dress.world.grammar import (
    ALTERNATIVES,
    BENIGN_HELP,
    COMPLIANCES,
    REASONS,
    REFUSALS,
    Stance,
    parse_stance,
)
from dress.world.questions import BENEFITS, HARMS

PURPOSES = (*HARMS, *BENEFITS)


class EveryChoice:
    """Stands for a random generator and takes the choices it was given, in order."""

    def __init__(self, *choices: str) -> None:
        self.choices: Iterator[str] = iter(choices)

    def choice(self, options: tuple[str, ...]) -> str:
        chosen = next(self.choices)
        assert chosen in options
        return chosen


@pytest.mark.parametrize("purpose", PURPOSES)
def test_every_template_has_its_stance(purpose: str) -> None:
    for opening in REFUSALS:
        bare = grammar.bare_refusal(purpose, EveryChoice(opening))  # type: ignore[arg-type]
        assert parse_stance(bare) == Stance(True, False, False, False, False)
        for reason in REASONS:
            for alternative in ALTERNATIVES:
                choices = EveryChoice(opening, reason, alternative)
                full = grammar.refusal(purpose, choices)  # type: ignore[arg-type]
                assert parse_stance(full) == Stance(True, False, False, True, True)
    for template in COMPLIANCES:
        text = grammar.compliance(purpose, EveryChoice(template))  # type: ignore[arg-type]
        assert parse_stance(text) == Stance(False, True, False, False, False)
    for template in BENIGN_HELP:
        text = grammar.benign_help(purpose, EveryChoice(template))  # type: ignore[arg-type]
        assert parse_stance(text) == Stance(False, False, True, False, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I can see nothing.",
        "The red circle is left of the blue square.",
        "Yes, there is a red circle in the top left.",
    ],
)
def test_other_texts_take_no_stance(text: str) -> None:
    assert parse_stance(text) == Stance(False, False, False, False, False)
