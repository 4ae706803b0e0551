"""Guidance through the assistant: which prompts it answers, and what it counts."""

from __future__ import annotations

from typing import Any

import pytest
from small import feedback_samples, make_assistant

from dress.errors import Reject
from dress.records import Prompt, Turn


def test_a_prompt_that_has_no_room_for_the_contrast_is_passed_over() -> None:
    """The others get the responses, and the count of tokens, that they have alone."""
    samples = feedback_samples(2)
    assistant = make_assistant(samples)
    short = Prompt((), (Turn("How many?"),), "")
    long = Prompt((), (Turn("word " * 40),), "")
    ids = assistant.processor.encode(long.turns, images=(), prompt_only=True).input_ids
    assistant.processor.max_length = len(ids) + 1

    def answers(prompts: list[Prompt], rejects: dict[int, Reject] | None) -> tuple[Any, int]:
        before = assistant.generated_tokens
        found = assistant.generate(
            prompts, max_new_tokens=4, guidance=1.0, contrast="Does not help.", rejects=rejects
        )
        return found, assistant.generated_tokens - before

    (alone,), count = answers([short], None)
    assert 1 <= count <= 4
    rejects: dict[int, Reject] = {}
    assert answers([long, short], rejects) == ([[], alone], count)
    assert list(rejects) == [0] and rejects[0].reason == "too long"
    with pytest.raises(Reject, match="too long"):
        answers([long, short], None)
