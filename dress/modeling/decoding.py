"""Answers token by token: prompts are read once, and rows that have ended leave the batch.

The tokens are those of `transformers`' generate(num_return_sequences=K), which reads a prompt K
times, copies all keys and values for every token, goes on with every row until the last has ended,
and draws a random number for every token of the vocabulary where one for each row does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, TemperatureLogitsWarper, TopPLogitsWarper
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from dress.errors import InputError
from dress.modeling.language import LanguageModel, full_precision

CACHE_NAMES = ("cache", "past_key_values")  # from transformers 5.24 on, and before
ENDED_SHARE = 0.25  # of the rows: from here on it pays to copy those that go on

Choose = Callable[[Float[Tensor, "live vocab"], Int[Tensor, " live"]], Int[Tensor, " live"]]
Heard = Callable[[Int[Tensor, " live"], Int[Tensor, " live"]], None]  # rows, a new token of each
ROOM = 64  # tokens that are set aside at a time


def greedy(*, guidance: float = 0.0) -> Choose:
    """Take the likeliest token; with `guidance` of pairs of rows, see `contrasted`."""

    def choose(logits: Tensor, _: Tensor) -> Tensor:
        return (contrasted(logits, guidance) if guidance else logits).argmax(dim=-1)

    return choose


def contrasted(logits: Float[Tensor, "row vocab"], weight: float) -> Float[Tensor, "row vocab"]:
    """Mix the first half of the rows with the second: row i + n / 2 is the contrast of row i.

    log p ~ (1 + w) log p(token | target) - w log p(token | contrast): classifier-free guidance for
    language models (Sanchez et al. 2023, arXiv 2306.17806) with the worst feedback as contrast.
    Both halves get the same scores, so that greedy decoding keeps them in step, each with its own
    key-value cache.
    """
    target, contrast = logits.log_softmax(dim=-1).chunk(2)
    mixed = (1 + weight) * target - weight * contrast
    return torch.cat([mixed, mixed])


def heard(choose: Choose, on_tokens: Heard) -> Choose:
    """Tell of the tokens as they are chosen; what `on_tokens` raises ends the decoding."""

    def choose_and_tell(logits: Tensor, live: Tensor) -> Tensor:
        tokens = choose(logits, live)
        on_tokens(live, tokens)
        return tokens

    return choose_and_tell


class DrawnLogProbs:
    """Keep the log-probabilities with which tokens were drawn, of rows that end one by one."""

    def __init__(self) -> None:
        self._steps: list[tuple[Tensor, Tensor]] = []

    def add(self, rows: Int[Tensor, " live"], log_probs: Float[Tensor, " live"]) -> None:
        self._steps.append((rows, log_probs))

    def row_by_row(self, *, rows: int) -> list[list[float]]:
        """Return those of each row, which may go on after its end token."""
        found: list[list[float]] = [[] for _ in range(rows)]
        for live, log_probs in self._steps:
            for row, value in zip(live.tolist(), log_probs.tolist(), strict=True):
                found[row].append(value)
        return found


def sampler(
    *, rows: int, temperature: float, top_p: float, drawn: DrawnLogProbs | None = None
) -> Choose:
    """Draw from the distribution at `temperature`, cut to the smallest set of mass `top_p`.

    Every step draws one number for each of all `rows` and looks up where it falls among the
    cumulated probabilities: so a row's tokens do not depend on which others are still in the
    batch. `drawn` keeps the log-probabilities in the distribution that is drawn from.
    """
    warpers: list[Any] = [TemperatureLogitsWarper(temperature)]
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))

    def choose(logits: Tensor, live: Tensor) -> Tensor:
        for warper in warpers:
            logits = warper(live[:, None], logits)
        probs = logits.softmax(dim=-1)
        cumulated = probs.cumsum(dim=-1)
        drawn_at = torch.rand(rows, device=probs.device).clamp(max=1 - 2**-23)  # below the total
        sought = drawn_at[live, None] * cumulated[:, -1:]
        tokens = torch.searchsorted(cumulated, sought, right=True)[:, 0]
        if drawn is not None:
            drawn.add(live, probs.gather(1, tokens[:, None])[:, 0].log())
        return tokens

    return choose


def decode(
    language: LanguageModel,
    *,
    embeds: Float[Tensor, "row seq dim"],
    attention_mask: Bool[Tensor, "row seq"],
    copies: int,
    choose: Choose,
    max_new_tokens: int,
    eos_token_id: int,
    pad_token_id: int,
) -> Int[Tensor, "row_times_copies new"]:
    """Continue left-padded prompts `copies` times each; a row is padded after its end token."""
    forward = CachedForward(language)
    mask = attention_mask.long()
    if not forward.by_rows:
        embeds, mask = (t.repeat_interleave(copies, dim=0) for t in (embeds, mask))
    logits = forward(mask, inputs_embeds=embeds)
    if copies > 1 and forward.by_rows:
        forward.cache.batch_repeat_interleave(copies)
        logits, mask = (t.repeat_interleave(copies, dim=0) for t in (logits, mask))
    live = torch.arange(len(mask), device=mask.device)
    ended = torch.zeros_like(live, dtype=torch.bool)
    answers = torch.full((len(live), max_new_tokens), pad_token_id, device=mask.device)
    for step in range(max_new_tokens):
        tokens = choose(logits.float(), live).masked_fill(ended, pad_token_id)
        answers[live, step] = tokens
        ended = ended | (tokens == eos_token_id)
        share = ended.float().mean().item()
        if share == 1 or step + 1 == max_new_tokens:
            return answers[:, : step + 1]
        if share >= ENDED_SHARE and forward.by_rows:
            kept = (~ended).nonzero().squeeze(1)
            forward.cache.batch_select_indices(kept)
            live, mask, tokens, ended = live[kept], mask[kept], tokens[kept], ended[kept]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = forward(mask, input_ids=tokens[:, None])
    return answers


def products_for_decoding(device: torch.device) -> AbstractContextManager[None]:
    """On a CPU multiply by MKL: oneDNN would copy the cache, whose rows have room behind them."""
    return full_precision() if device.type == "cpu" else nullcontext()


class CachedForward:
    """Run the LM on what the cache does not hold yet; return the logits of the last token.

    `by_rows`: rows of the cache can be repeated and selected, which those of a state cannot.
    """

    def __init__(self, language: LanguageModel) -> None:
        self.language, self.cache = language, growing_cache(language)
        own = language.get_base_model() if isinstance(language, PeftModel) else language
        accepted = inspect.signature(own.forward).parameters
        name = next((name for name in CACHE_NAMES if name in accepted), None)
        if name is None:
            raise InputError(
                f"model.language: a {language.config.model_type} keeps no keys and values, which "
                "generation needs here; choose another language model."
            )
        self.holding = {name: self.cache}
        keys_and_values = (GrowingLayer, DynamicSlidingWindowLayer)  # these hold nothing else
        self.by_rows = all(type(layer) in keys_and_values for layer in self.cache.layers)
        self.positions = "position_ids" in accepted
        self.last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def __call__(self, mask: Int[Tensor, "row seq"], **new: Tensor) -> Float[Tensor, "row vocab"]:
        inputs: dict[str, Any] = {**new, **self.last_only, **self.holding}
        if self.positions:
            number = next(iter(new.values())).shape[1]
            inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -number:]
        output = self.language(attention_mask=mask, use_cache=True, **inputs)
        return output.logits[:, -1]


class GrowingLayer(DynamicLayer):
    """A layer of DynamicCache that is not copied for each new token, for use without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: list[Tensor | None] = [None, None]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: None, **kwargs: None
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._append(0, self.keys, key_states)
        self.values = self._append(1, self.values, value_states)
        return self.keys, self.values

    def _append(self, number: int, held: Tensor | None, new: Tensor) -> Tensor:
        """Write `new` [row, head, token, dim] behind `held`, a view of the buffer or anything."""
        assert held is not None
        begin = held.shape[-2] if held.numel() else 0
        end = begin + new.shape[-2]
        buffer = self._buffers[number]
        if buffer is None or buffer.data_ptr() != held.data_ptr() or buffer.shape[-2] < end:
            buffer = new.new_empty(*new.shape[:-2], end + ROOM, new.shape[-1])
            if begin:
                buffer[..., :begin, :] = held
            self._buffers[number] = buffer
        buffer[..., begin:end, :] = new
        return buffer[..., :end, :]


def growing_cache(language: LanguageModel) -> DynamicCache:
    """Return an empty cache; layers of other kinds (a window, a state) stay as they are."""
    cache = DynamicCache(config=language.config)
    cache.layers = [
        GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


@contextmanager
def seeded(seed: int | None, *, device: torch.device) -> Iterator[None]:
    """Draw from `seed` inside, and leave the global generators as they were."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
