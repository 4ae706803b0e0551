"""Keys and values that grow in place while answers are generated."""

from __future__ import annotations

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
