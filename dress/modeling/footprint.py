"""What training takes, found out without weights: shapes alone go through the model's own modules.

Tensors are fake ones of torch: they have a shape, a type and a place, and no memory. A forward and
a backward pass over them meet every operation of a real one, of which the bytes that are alive and
the arithmetic are counted. Nothing is computed, so that this takes seconds for a model of any size.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import AttentionInterface

from dress.modeling.block_attention import refuse_others
from dress.modeling.build import build_model
from dress.modeling.decoding import CachedForward
from dress.modeling.head import LOGITS, output_head
from dress.modeling.language import Attention, LanguageModel, attending_as, token_embedding
from dress.modeling.layers import layers_of
from dress.modeling.lvlm import LVLM
from dress.modeling.tokenizer import image_token_of, train_tokenizer
from dress.modeling.tree_attention import attends_plainly, attention_on_trees
from dress.settings import Precision
from dress.types import TokenBatch

FUSED = "dress_fused_shapes"
NF4_BYTES = 1 / 2 + (1 + 4 / 256) / 64  # of a weight: blocks of 64, whose scales are rounded too
FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FLASH_FLOPS = {  # which torch counts for GPUs alone; as there, all pairs of tokens count
    FLASH: lambda *shapes, out_shape, **_: sdpa_flop_count(*shapes[:3]),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda *shapes, out_shape, **_: sdpa_backward_flop_count(*shapes[:4])
    ),
}
Loss = Callable[[TokenBatch], Tensor]


@dataclass(frozen=True)
class Pass:
    """A forward and a backward pass: bytes at its peak beside what rests, and its FLOPs."""

    peak: int
    flops: int
    forward_flops: int


class LiveBytes(TorchDispatchMode):
    """Count the bytes of tensors that are made within and alive; views and `resting` count none."""

    def __init__(self, resting: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in resting}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return output

    def _add(self, storage: torch.UntypedStorage) -> None:
        if (key := storage._cdata) not in self._known:
            self._known.add(key)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key, storage.nbytes())

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def shapes_of(spec: Mapping[str, Any], *, fused: bool) -> LVLM:
    """Build the model of a specification, all of random weights, from fake tensors.

    With `fused` attention keeps what the kernels of a GPU keep, else what block_attention.py does.
    """
    with torch.device("meta"):
        model = build_model(
            spec,
            tokenizer=train_tokenizer([""], vocab_size=300, special_tokens=[image_token_of(spec)]),
        )
    made: dict[int, tuple[Tensor, Tensor]] = {}  # tied weights are one
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        made.setdefault(id(tensor), (tensor, _fake(tensor)))
                        tensors[name] = made[id(tensor)][1]  # type: ignore[assignment]
    model.attend = fused_attention if fused else None
    return model


def _fake(tensor: Tensor) -> Tensor:
    made = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(made, requires_grad=tensor.requires_grad) if is_parameter else made


def at_rest(model: nn.Module) -> list[Tensor]:
    """Return weights and buffers, tied ones once."""
    return [*model.parameters(), *model.buffers()]


def make_gradients(models: Sequence[nn.Module]) -> None:
    """Give each weight that trains a gradient of zeros."""
    for weight in (weight for model in models for weight in model.parameters()):
        if weight.requires_grad:
            weight.grad = torch.zeros_like(weight)


def gradients_of(models: Sequence[nn.Module]) -> list[Tensor]:
    found = (weight.grad for model in models for weight in model.parameters())
    return [gradient for gradient in found if gradient is not None]


def bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def weight_bytes(model: LVLM, *, quantization: str | None = None) -> int:
    """Return the bytes of weights and buffers, linear layers of the LM in 4 bits with `nf4`."""
    whole = bytes_of(at_rest(model))
    if quantization is None:
        return whole
    rounded = [
        module.weight
        for name, module in model.language.named_modules()
        if isinstance(module, nn.Linear) and module is not output_head(model.language)
        if "lora_" not in name
    ]
    numbers = sum(weight.numel() for weight in rounded)
    return whole - bytes_of(rounded) + round(numbers * NF4_BYTES)


def gathered_bytes(model: LVLM) -> int:
    """Return the bytes that FSDP has whole on each device: two of the layers, and all else."""
    layers = layers_of(model.language)
    sizes = [bytes_of(layer.parameters()) for layer in layers or ()]
    return bytes_of(model.parameters()) - sum(sizes) + 2 * max(sizes, default=0)


def training_pass(
    models: Sequence[LVLM], loss: Loss, *, rows: int, length: int, precision: Precision
) -> Pass:
    """Go forward and backward once, over rows of an image and text, all of which is learned.

    Gradients are there before (`make_gradients`), as in every pass of a step but the first.
    """
    resting = [tensor for model in models for tensor in at_rest(model)]
    gradients = gradients_of(models)
    batch = batch_of_rows(models[0], rows=rows, length=length)
    half = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16-mixed")
    counter = FlopCounterMode(display=False, custom_mapping=FLASH_FLOPS)
    with LiveBytes([*resting, *gradients]) as live, counter as flops, half:
        total = loss(batch)
        forward = flops.get_total_flops()
        total.backward()
    return Pass(peak=live.peak, flops=flops.get_total_flops(), forward_flops=forward)


def batch_of_rows(model: LVLM, *, rows: int, length: int) -> TokenBatch:
    """Return rows of `length` tokens each: one, the patches of an image, and text to be learned.

    Each row and the next are a pair of responses.
    """
    patches, size = model.num_image_tokens, model.vision.image_size
    row, token = torch.arange(rows)[:, None], torch.arange(length)
    slot = torch.full((rows, length), -1)
    slot[:, 1 : 1 + patches] = row * patches + torch.arange(patches)
    nodes = (row * length + token[patches:-1]).flatten()
    return TokenBatch(
        input_ids=torch.zeros(rows, length, dtype=torch.int64),
        position_ids=token.repeat(rows, 1),
        subtree_end=torch.full((rows, length), length),
        image_slot=slot,
        pixels=torch.zeros(rows, size, size, 3, dtype=torch.uint8),
        logit_node=nodes,
        target_node=nodes + 1,
        target_logit=torch.arange(len(nodes)),
        target_seq=row.flatten().repeat_interleave(length - 1 - patches),
        sequence_end=row.flatten() * length + length - 1,
        sequence_group=row.flatten(),
        sequence_turn=torch.zeros(rows, dtype=torch.int64),
        pairs=torch.arange(rows // 2 * 2).view(-1, 2),
        image_pairs=torch.zeros(0, 2, dtype=torch.int64),
        chain_bounds=torch.arange(0, rows * length + 1, length),
        group_ids=tuple(map(str, range(rows))),
    )


def rows_in_pieces(model: LVLM, *, length: int) -> int:
    """Return how many rows have too many logits to be held at once: from here on memory is linear.

    At most 8, where logits are few beside the rest.
    """
    logits = (length - 1 - model.num_image_tokens) * output_head(model.language).out_features
    return min(LOGITS // logits + 1, 8)


@torch.no_grad()
def cache_bytes(language: LanguageModel) -> int:
    """Return the bytes of the keys and values of one token, while responses are sampled."""
    tokens = torch.ones(1, 2, dtype=torch.int64)
    forward = CachedForward(language)
    forward(tokens, inputs_embeds=token_embedding(language)(tokens))
    held = [vars(layer).get(name) for layer in forward.cache.layers for name in ("keys", "values")]
    return bytes_of(each for each in held if isinstance(each, Tensor)) // tokens.shape[1]


def fused_attention(
    subtree_end: Int[Tensor, "row seq"],
    nodes: Int[Tensor, " node"],
    *,
    language: LanguageModel,
    dtype: torch.dtype,
    chain_bounds: Int[Tensor, " bound"] | None = None,
    trimmed: bool = True,
) -> Attention:
    """Stand in for `attention_on_trees` with what kernels of a GPU keep: no scores of any token."""
    if not attends_plainly(language):  # which they do not run either
        return attention_on_trees(subtree_end, nodes, language=language, dtype=dtype)
    unread = torch.zeros(1, 1, 1, 1, dtype=dtype)
    return Attention(unread, partial(attending_as, language, FUSED))


def _attend(
    module: nn.Module,
    query: Float[Tensor, "row head seq dim"],
    key: Float[Tensor, "row kv_head seq dim"],
    value: Float[Tensor, "row kv_head seq dim"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    position_ids: Tensor | None = None,
    **options: Tensor | float | bool | None,
) -> tuple[Float[Tensor, "row seq head dim"], None]:
    refuse_others(options)
    if (repeats := query.shape[1] // key.shape[1]) > 1:
        key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
    output, _ = FLASH(query.to(value.dtype), key.to(value.dtype), value, 0.0, True, scale=scaling)
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(FUSED, _attend)
