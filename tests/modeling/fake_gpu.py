"""A GPU of fake tensors: what runs there, in which types, and how often the host waits for it.

FakeTensorMode knows shapes, types and devices, and refuses operations across devices. Whole numbers
and truth values have their values beside them, so that what depends on them goes on.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from dress.modeling.lvlm import LVLM
from dress.types import TokenBatch

aten = torch.ops.aten
GPU = torch.device("cuda", 0)
BY_VALUE = {  # their results have a shape, or are a number, that only values tell
    aten._local_scalar_dense,
    aten.bincount,
    aten.equal,
    aten.is_nonzero,
    aten.masked_select,
    aten.nonzero,
    aten.repeat_interleave,
    aten._unique2,
    aten.unique_consecutive,
    aten.unique_dim,
}
MASKED = (aten.index, aten.index_put, aten.index_put_)
PLAIN = (torch.int64, torch.int32, torch.bool, torch.uint8)


class FakeGPU(TorchDispatchMode):
    """Within, tensors on `GPU` are fake. `waits` counts what the host waits for, by operation."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.doubles: Counter[str] = Counter()
        self.ran: Counter[str] = Counter()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._values: Any = WeakIdKeyDictionary()

    def __enter__(self) -> FakeGPU:
        self.fake.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.fake.__exit__(*error)

    def tensor(self, real: Tensor) -> Tensor:
        """Put a tensor on the GPU; the values of whole numbers stay known."""
        with self.fake:
            made = torch.empty(real.shape, dtype=real.dtype, device=GPU)
        if real.dtype in PLAIN:
            self._values[made] = real
        return made

    def model(self, model: LVLM) -> LVLM:
        """Move a model, tied weights once."""
        made: dict[int, Tensor] = {}
        for module in model.modules():
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is not None and id(tensor) not in made:
                    moved = self.tensor(tensor.detach())
                    if isinstance(tensor, nn.Parameter):
                        moved = nn.Parameter(moved, requires_grad=tensor.requires_grad)
                    made[id(tensor)] = moved
                if tensor is not None:
                    own = module._parameters if name in module._parameters else module._buffers
                    own[name] = made[id(tensor)]  # type: ignore[assignment]
        return model

    def batch(self, batch: TokenBatch) -> TokenBatch:
        moved = {
            field.name: self.tensor(value)
            for field in dataclasses.fields(batch)
            if isinstance(value := getattr(batch, field.name), Tensor)
        }
        return dataclasses.replace(batch, **moved)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):  # FlexAttention
            return func(*args, **kwargs)
        if func.overloadpacket in MASKED:
            args = self._by_number(args)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        name = func.overloadpacket.__name__
        self.ran[name] += 1
        values = self._real(func, args, kwargs) if self._known(given) else None
        by_value = func.overloadpacket in BY_VALUE and bool(given)
        if _waits(func, given, kwargs, by_value=by_value):
            self.waits[name] += 1
        if by_value and values is None and given[0].is_floating_point():
            return 1.0  # of _local_scalar_dense: whatever it may be
        if by_value:
            assert values is not None, f"{func} depends on numbers that are not whole"
            return self._faked(values, on=given[0].device)
        output = func(*args, **kwargs)
        self._remember(func, args, output, values)
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.dtype == torch.float64 and tensor.is_cuda:
                self.doubles[name] += 1
        return output

    def _by_number(self, args: Sequence[Any]) -> Sequence[Any]:
        """Put the numbers of what a mask lets through in its place, for which a host waits."""
        found: list[Tensor | None] = []
        for index in args[1]:
            if index is None or index.dtype != torch.bool:
                found.append(index)
                continue
            self.waits["nonzero"] += index.is_cuda
            with unset_fake_temporarily():
                numbers = self._values[index].nonzero().unbind(1)
            found += [self._faked(each, on=index.device) for each in numbers]
        return [args[0], found, *args[2:]]

    def _known(self, given: Sequence[Tensor]) -> bool:
        return all(tensor in self._values or not _is_fake(tensor) for tensor in given)

    def _real(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        def real(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return self._values.get(leaf, leaf)
            return torch.device("cpu") if isinstance(leaf, torch.device) else leaf

        with unset_fake_temporarily():
            return func(*tree_map(real, args), **tree_map(real, kwargs))

    def _faked(self, values: Any, *, on: torch.device) -> Any:
        def fake(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            made = torch.empty(leaf.shape, dtype=leaf.dtype, device=on)
            self._values[made] = leaf
            return made

        return tree_map(fake, values)

    def _remember(self, func: Any, args: Sequence[Any], output: Any, values: Any) -> None:
        """Keep the values of whole numbers, and forget those that something else was written to."""
        if values is None:
            if func._schema.is_mutable and args and isinstance(args[0], Tensor):
                self._values.pop(args[0], None)
            return
        for made, value in zip(tree_leaves(output), tree_leaves(values), strict=True):
            if isinstance(made, Tensor) and made.dtype in PLAIN and _is_fake(made):
                self._values[made] = value


def _is_fake(tensor: Tensor) -> bool:
    return type(tensor).__name__ == "FakeTensor" or isinstance(tensor, nn.Parameter)


def _waits(
    func: Any, given: Sequence[Tensor], kwargs: Mapping[str, Any], *, by_value: bool
) -> bool:
    """Whether a GPU's host has to wait: it needs a value, or copies one to its own memory."""
    if not any(tensor.is_cuda for tensor in given):
        return False
    packet = func.overloadpacket
    if packet == aten._to_copy:
        return str(kwargs.get("device", GPU)) == "cpu"
    if packet == aten.copy_:
        return not given[0].is_cuda
    return by_value and kwargs.get("output_size") is None
