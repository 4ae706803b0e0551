"""A model whose answers are heard while they are generated, and can be stopped. No web server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue

from jaxtyping import Int
from torch import Tensor

from dress.assistant import Assistant
from dress.chat.processor import UNREADABLE
from dress.records import Prompt, Turn

GENERATING = threading.Lock()  # the seed and the precision of products are the whole process's


class Stopped(Exception):
    """Ends a generation from within."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be answered, and how: the last of the turns has no answer yet."""

    image: bytes
    turns: tuple[Turn, ...]
    parent: str = ""  # the answer that is followed, as the folder names it
    target: str = "none"  # a condition
    temperature: float = 0.0
    samples: int = 1
    seed: int = 0


class Streamer:
    """Stream the answers of one model, under a condition only where it has learned from some."""

    def __init__(self, *, name: str, assistant: Assistant, max_new_tokens: int) -> None:
        self.name, self.assistant, self.max_new_tokens = name, assistant, max_new_tokens

    def target(self, request: Request) -> str:
        return request.target if self.assistant.condition.learned else "none"

    def prompt(self, request: Request) -> Prompt:
        condition = self.assistant.condition
        text = condition.at(len(request.turns) - 1, condition.target(self.target(request)))
        return Prompt(images=(request.image,), turns=request.turns, condition=text)

    def prompt_text(self, request: Request) -> str:
        """Return the text that the model is given."""
        condition = self.prompt(request).condition
        template = self.assistant.processor.template
        return template.render(
            request.turns, num_images=1, condition=condition, prompt_only=True
        ).text

    def stream(self, request: Request, stop: threading.Event) -> Iterator[list[str]]:
        """Yield the answers so far, one text for each sample, until they end or `stop` is set.

        What the model raises is raised here. Greedy answers do not differ: there is one.
        """
        samples = request.samples if request.temperature else 1
        rows: list[list[int]] = [[] for _ in range(samples)]
        heard: SimpleQueue[list[str] | Exception | None] = SimpleQueue()

        def on_tokens(live: Int[Tensor, " live"], tokens: Int[Tensor, " live"]) -> None:
            if stop.is_set():
                raise Stopped
            for row, token in zip(live.tolist(), tokens.tolist(), strict=True):
                rows[row].append(token)
            heard.put([self.assistant.processor.decode(row).rstrip(UNREADABLE) for row in rows])

        def generate() -> None:
            try:
                with GENERATING:
                    self.assistant.generate(
                        [self.prompt(request)],
                        max_new_tokens=self.max_new_tokens,
                        temperature=request.temperature,
                        num_samples=samples,
                        seed=request.seed,
                        on_tokens=on_tokens,
                    )
                heard.put(None)
            except Stopped:
                heard.put(None)
            except Exception as error:
                heard.put(error)

        threading.Thread(target=generate, daemon=True).start()
        while (texts := heard.get()) is not None:
            if isinstance(texts, Exception):
                raise texts
            yield texts
