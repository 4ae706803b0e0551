"""The keys and values of a prompt, computed once, and grown in place while answers are sampled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from jaxtyping import Bool, Float
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from dress.modeling.language import LanguageModel

ROOM = 64  # tokens that are set aside at a time


class GrowingLayer(DynamicLayer):
    """A layer of DynamicCache that is not copied for each new token, for use without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: list[Tensor | None] = [None, None]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
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


def growing_cache(language: LanguageModel) -> DynamicCache | None:
    """Return an empty cache, or None for an LM whose cache is of a kind of its own."""
    supported: Callable[[], bool] = cast(Any, language)._supports_default_dynamic_cache
    cache = DynamicCache(config=language.config)
    if not supported() or not all(isinstance(layer, DynamicLayer) for layer in cache.layers):
        return None
    cache.layers = [
        GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def prefill(
    language: LanguageModel,
    cache: DynamicCache,
    *,
    embeds: Float[Tensor, "row seq dim"],
    attention_mask: Bool[Tensor, "row seq"],
) -> None:
    """Fill the cache with left-padded prompts, but for the last token: generation starts there."""
    mask = attention_mask[:, :-1]
    language(
        inputs_embeds=embeds[:, :-1],
        attention_mask=mask.long(),
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
