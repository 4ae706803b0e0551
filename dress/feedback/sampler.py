"""The interface of what responses are sampled from: a model of ours, or one behind a server.

dress/assistant.py is the first, dress/feedback/endpoint_sampler.py the second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from dress.chat.condition import Condition
from dress.errors import Reject
from dress.records import Prompt


class Sampler(Protocol):
    condition: Condition

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        num_samples: int = 1,
        batch_size: int = 128,
        guidance: float = 0.0,
        contrast: str = "",
        seed: int = 0,
        on_batch: Callable[[int], None] | None = None,
        rejects: dict[int, Reject] | None = None,
        together: bool = False,
    ) -> list[list[str]]:
        """Return `num_samples` responses per prompt; `on_batch` hears how many prompts are done.

        A prompt without a response raises Reject, or, where `rejects` is given, is noted there by
        its number and gets none.
        """
        ...

    def metrics(self) -> dict[str, float]:
        """Count what the responses so far have cost."""
        ...
