"""A model whose answers are heard as they are made, and can be stopped. No web server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue

from jaxtyping import Int
from torch import Tensor

from dress.assistant import Assistant
from dress.chat.processor import UNREADABLE
from dress.records import Prompt
from dress.types import Turn

DECODING = threading.Lock()  # the seed and the precision of products are the whole process's


class Stopped(Exception):
    """Ends a decoding from within."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be answered, and how: the last of the turns has no answer yet."""

    image: bytes
    turns: tuple[Turn, ...]
    target: str
    temperature: float = 0.0
    samples: int = 1
    seed: int = 0


class Speaker:
    """Answer one wish at a time, under a condition only where the model has learned from some."""

    def __init__(self, *, name: str, assistant: Assistant, max_new_tokens: int) -> None:
        self.name, self.assistant, self.max_new_tokens = name, assistant, max_new_tokens

    def target(self, wish: Wish) -> str:
        return wish.target if self.assistant.condition.learned else "none"

    def prompt(self, wish: Wish) -> Prompt:
        condition = self.assistant.condition
        text = condition.at(len(wish.turns) - 1, condition.target(self.target(wish)))
        return Prompt(images=(wish.image,), turns=wish.turns, condition=text)

    def given(self, wish: Wish) -> str:
        """Return the text that the model is given."""
        rendered = self.assistant.processor.template.render(
            wish.turns, num_images=1, condition=self.prompt(wish).condition, prompt_only=True
        )
        return rendered.text

    def stream(self, wish: Wish, stop: threading.Event) -> Iterator[list[str]]:
        """Yield the answers so far, one text for each sample, until they end or `stop` is set.

        What the model raises is raised here. Greedy answers do not differ: there is one.
        """
        samples = wish.samples if wish.temperature else 1
        rows: list[list[int]] = [[] for _ in range(samples)]
        said: SimpleQueue[list[str] | BaseException | None] = SimpleQueue()
        left = threading.Event()  # nobody listens any more

        def on_tokens(live: Int[Tensor, " live"], tokens: Int[Tensor, " live"]) -> None:
            if stop.is_set() or left.is_set():
                raise Stopped
            for row, token in zip(live.tolist(), tokens.tolist(), strict=True):
                rows[row].append(token)
            said.put([self.assistant.processor.decode(row).rstrip(UNREADABLE) for row in rows])

        def work() -> None:
            try:
                with DECODING:
                    self.assistant.generate(
                        [self.prompt(wish)],
                        max_new_tokens=self.max_new_tokens,
                        temperature=wish.temperature,
                        num_samples=samples,
                        seed=wish.seed,
                        on_tokens=on_tokens,
                    )
            except Stopped:
                pass
            except Exception as error:
                said.put(error)
            said.put(None)

        threading.Thread(target=work, daemon=True).start()
        try:
            while (texts := said.get()) is not None:
                if isinstance(texts, BaseException):
                    raise texts
                yield texts
        finally:
            left.set()
