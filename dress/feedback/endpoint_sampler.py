"""Responses of a model behind any OpenAI-compatible server, as if it were one of ours."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dress.chat.condition import Condition
from dress.chat.images import data_url
from dress.errors import InputError, Reject
from dress.feedback.client import ATTEMPTS, ChatClient, in_order
from dress.feedback.endpoint import NO_GUIDANCE, Endpoint
from dress.generation import SERVED
from dress.records import Prompt

Setting = Literal["temperature", "top_p", "max_tokens", "seed"]
_SEEDS = 2**31 - ATTEMPTS  # every server takes 31 bits; the client adds the number of its attempt


@dataclass(kw_only=True, eq=False)
class EndpointSampler(Endpoint):
    """Ask for each response by a request of its own, with the images as data URLs.

    `omit` names settings that the server refuses and that are therefore not sent. A condition is
    text of ours, which a foreign model never learned: it is shown only where one is asked for, then
    behind the question.
    """

    omit: Sequence[Setting] = ()
    condition: Condition = field(default_factory=lambda: Condition(learned=False))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.client = ChatClient(self)

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
        """Return the responses, as Sampler says; InputError where no request would succeed.

        A server has batches of its own: `batch_size`, `contrast` and `together` mean nothing here.
        """
        if guidance:
            raise InputError(NO_GUIDANCE)
        settings = {"temperature": temperature, "top_p": top_p, "max_tokens": max_new_tokens}
        sent = {name: None if name in self.omit else value for name, value in settings.items()}
        asked = (
            self._answers(prompt, sent, draws)
            for prompt, draws in zip(
                prompts, _draws(len(prompts), num_samples, seed, temperature), strict=True
            )
        )
        responses: list[list[str]] = []
        for number, said in enumerate(in_order(self.client, asked)):
            if isinstance(said, Reject):
                if rejects is None:
                    raise said.at(where=self.base_url, key=prompts[number].turns[-1].user)
                rejects[number] = said
                responses.append([])
                continue
            responses.append(said)
            if on_batch:
                on_batch(1)
        return responses

    def metrics(self) -> dict[str, float]:
        return {f"{SERVED}{name}": value for name, value in self.client.metrics().items()}

    async def _answers(
        self, prompt: Prompt, sent: Mapping[str, Any], draws: Sequence[int]
    ) -> list[str] | Reject:
        """Return a response for each draw, or the first Reject when all have been asked."""
        try:
            messages = chat_messages(prompt)
        except Reject as reject:  # of an image
            return reject
        asking = (
            self.client.respond(
                messages, **sent, seed=None if "seed" in self.omit else draw, draw=draw
            )
            for draw in draws
        )
        said = await asyncio.gather(*asking, return_exceptions=True)
        for outcome in said:
            if isinstance(outcome, BaseException) and not isinstance(outcome, Reject):
                raise outcome
        rejects = [outcome for outcome in said if isinstance(outcome, Reject)]
        return rejects[0] if rejects else [text for text in said if isinstance(text, str)]


def chat_messages(prompt: Prompt) -> list[dict[str, Any]]:
    """Write a prompt as chat messages: images, then the first question, answers, further turns.

    Raises Reject where an image cannot be shown.
    """
    messages: list[dict[str, Any]] = []
    *earlier, last = prompt.turns
    for turn in earlier:
        messages += [
            {"role": "user", "content": turn.user},
            {"role": "assistant", "content": turn.model or ""},
        ]
    asked = f"{last.user}\n\n{prompt.condition}" if prompt.condition else last.user
    messages.append({"role": "user", "content": asked})
    shown = [{"type": "image_url", "image_url": {"url": data_url(i)}} for i in prompt.images]
    if shown:
        first = {"type": "text", "text": messages[0]["content"]}
        messages[0] = {"role": "user", "content": [*shown, first]}
    return messages


def _draws(
    prompts: int, num_samples: int, seed: int, temperature: float
) -> Iterator[Sequence[int]]:
    """Yield the seeds of each prompt's responses: of all draws another one, or one if greedy."""
    for number in range(prompts):
        if temperature == 0:
            yield [seed % _SEEDS] * num_samples
        else:
            texts = (f"draw/{seed}/{number}/{sample}" for sample in range(num_samples))
            yield [_whole(text) for text in texts]


def _whole(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % _SEEDS
