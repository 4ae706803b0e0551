"""The vision-language model: tower -> projector -> causal LM, on token trees."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from dress.errors import InputError
from dress.modeling.decoding import (
    DrawnLogProbs,
    Heard,
    decode,
    greedy,
    heard,
    products_for_decoding,
    sampler,
    seeded,
)
from dress.modeling.head import Read, fits, read_in_pieces
from dress.modeling.language import LanguageModel, text_config, token_embedding
from dress.modeling.layers import layers_of
from dress.modeling.projector import EndedProjector
from dress.modeling.tower import Tower
from dress.modeling.tree_attention import AttentionOf, Ways, run_language
from dress.types import EncodedImagesBatch, TokenBatch

P = ParamSpec("P")
T = TypeVar("T")


def inside_forward(
    method: Callable[Concatenate[LVLM, P], T],
) -> Callable[Concatenate[LVLM, P], T]:
    """Run a method within `forward`, the one place where a sharded model has its weights."""

    @wraps(method)
    def run(self: LVLM, *args: P.args, **kwargs: P.kwargs) -> T:
        return self(partial(method, self, *args, **kwargs))

    return run


class LVLM(nn.Module):
    """Splice projected image features into a causal LM.

    Weights are used nowhere but within `forward`, whichever method was called.

    `ways` says how the LM may be run (tree_attention.py). `differs` names the parts whose weights
    are no longer those of their public checkpoint, `merged_adapters` the LoRA already inside the
    LM; see checkpoint.py.
    `scalar_head` makes it a reward or value model: one number from the state of a token.
    `gpu_kernels` allows gpu_attention.py on a GPU, where trees else meet a dense mask; `attend` is
    another attention, that of footprint.py.
    `sharded`: the weights rest in shares on all ranks (sharding.py).
    """

    def __init__(
        self,
        *,
        vision: Tower,
        projector: nn.Module,
        language: LanguageModel,
        image_token_id: int,
        pad_token_id: int,
        eos_token_id: int,
        scalar_head: nn.Linear | None = None,
        gpu_kernels: bool = True,
    ) -> None:
        super().__init__()
        self.vision = vision
        self.projector = projector
        self.num_image_tokens = vision.num_tokens + isinstance(projector, EndedProjector)
        self.language = language
        self.scalar_head = scalar_head
        self.image_token_id = image_token_id
        self.pad_token_id = pad_token_id
        self.eos_token_id = eos_token_id
        self.gpu_kernels = gpu_kernels
        self.sharded = False
        self.ways = Ways()
        self.checkpointing = False
        self.attend: AttentionOf | None = None
        self.differs: set[str] = set()
        self.merged_adapters: list[tuple[dict[str, Any], dict[str, Tensor]]] = []

    @property
    def trees(self) -> bool:
        """Whether rows may be token trees; else each is one sequence with padding behind it."""
        return self.ways.trees

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def train(self, mode: bool = True) -> LVLM:
        """Switch to training, except parts that are frozen as a whole: these stay in eval."""
        super().train(mode)
        for part in (self.vision, self.projector, self.language):
            if not _trains(part):
                part.eval()
        return self

    def checkpoint_activations(self) -> None:
        """Compute the layers of LM and tower again in backward passes, which then need less memory.

        InputError where the layers of the LM cannot be told from its other parts.
        """
        if layers_of(self.language) is None:
            raise InputError(
                "module.activation_checkpointing: the layers of this "
                f"{text_config(self.language).model_type} are not found, so that none can run "
                "again: give module.activation_checkpointing=false."
            )
        self.checkpointing = True
        self.vision.checkpoint_activations()

    def forward(
        self,
        batch: TokenBatch | Callable[[], Any],
        *reads: Read,
        tokens: Int[Tensor, "target kept"] | None = None,
    ) -> Any:
        """Compute the logits at `batch.logit_node` only, through the LM's own head: [node vocab].

        With `reads` return what each of them says of the targets instead, a tuple of tensors: where
        the vocabulary is large the logits are then never held all at once (head.py). `tokens` are
        what they are asked about in place of the targets' own. In place of a batch there may be
        other work on the weights (`inside_forward`).
        """
        if not isinstance(batch, TokenBatch):
            return batch()
        whole = not reads or not self.ways.headless or fits(self.language, batch.logit_node)
        logits, states = self._run(batch, batch.logit_node, head=whole)
        if not reads:
            return logits
        targets = batch.target_logit, batch.target_ids if tokens is None else tokens
        if whole:
            return tuple(read(logits, *targets) for read in reads)
        return read_in_pieces(
            self.language, states, target_logit=targets[0], target_ids=targets[1], reads=reads
        )

    @inside_forward
    def scores(self, batch: TokenBatch) -> Float[Tensor, " sequence"]:
        """Apply the scalar head, in float32 at least, to the state of each sequence's last token.

        The state is what the LM's own head sees: after the last layer and its norm.
        """
        return self._scalars(batch, batch.sequence_end)

    @inside_forward
    def values(self, batch: TokenBatch) -> Float[Tensor, " target"]:
        """Apply the scalar head to the state before each supervised token, as `scores` does."""
        return self._scalars(batch, batch.logit_node)[batch.target_logit]

    def _scalars(self, batch: TokenBatch, nodes: Int[Tensor, " node"]) -> Float[Tensor, " node"]:
        assert self.scalar_head is not None, "the model was built without a scalar head"
        _, states = self._run(batch, nodes, head=not self.ways.headless)
        with torch.autocast(states.device.type, enabled=False):
            return self.scalar_head(states.to(self.scalar_head.weight.dtype)).squeeze(-1)

    def _run(
        self, batch: TokenBatch, nodes: Int[Tensor, " node"], *, head: bool
    ) -> tuple[Float[Tensor, "node vocab"], Float[Tensor, "node dim"]]:
        """Return the logits and the LM's last states at `nodes` (flat row * seq indices).

        Without `head` there are no logits.
        """
        patches = batch.patches if isinstance(batch, EncodedImagesBatch) else None
        embeds = self.embed(batch.input_ids, batch.image_slot, batch.pixels, patches=patches)
        return run_language(
            self.language,
            embeds,
            nodes,
            subtree_end=batch.subtree_end,
            position_ids=batch.position_ids,
            chain_bounds=batch.chain_bounds if self.gpu_kernels else None,
            ways=self.ways,
            head=head,
            checkpointing=self.checkpointing,
            attend=self.attend,
        )

    def embed(
        self,
        input_ids: Int[Tensor, "row seq"],
        image_slot: Int[Tensor, "row seq"],
        pixels: UInt8[Tensor, "image height width 3"],
        *,
        patches: Float[Tensor, "image patch dim"] | None = None,
    ) -> Float[Tensor, "row seq dim"]:
        """Look up the tokens and put image features where `image_slot` is not -1."""
        embeds = token_embedding(self.language)(input_ids)
        pixels = self._seen(pixels)
        if pixels.shape[0] == 0:
            return embeds
        features = self.image_features(pixels, patches=patches).flatten(0, 1).to(embeds.dtype)
        slots = image_slot.flatten()
        nodes = (slots >= 0).nonzero().squeeze(1)
        spliced = embeds.flatten(0, 1).index_copy(0, nodes, features[slots[nodes]])
        return spliced.view_as(embeds)

    def _seen(
        self, pixels: UInt8[Tensor, "image height width 3"]
    ) -> UInt8[Tensor, "one_or_more height width 3"]:
        """Put a blank image where there is none and tower and projector have to run all the same.

        DDP waits for a gradient of every trainable weight, and ranks gather shares together.
        """
        trains = _trains(self.vision) or _trains(self.projector)
        if pixels.shape[0] or not (self.sharded or (torch.is_grad_enabled() and trains)):
            return pixels
        return pixels.new_zeros(1, self.vision.image_size, self.vision.image_size, 3)

    def image_features(
        self,
        pixels: UInt8[Tensor, "image height width 3"],
        *,
        patches: Float[Tensor, "image patch dim"] | None = None,
    ) -> Float[Tensor, "image patch dim"]:
        """Encode and project images; a frozen tower keeps no activations.

        With `patches`, what the tower makes of the images, these are only projected.
        """
        if patches is None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and _trains(self.vision)):
                patches = self.vision(pixels)
        return self.projector(patches.to(next(self.projector.parameters()).dtype))

    def with_patches(self, batch: TokenBatch) -> TokenBatch:
        """Add what a frozen tower makes of the images, for several passes over them."""
        pixels = self._seen(batch.pixels)
        if _trains(self.vision) or pixels.shape[0] == 0:
            return batch
        with torch.no_grad():
            patches = self(partial(self.vision, pixels))
        return EncodedImagesBatch(**vars(batch) | {"pixels": pixels}, patches=patches)

    @inside_forward
    @torch.no_grad()
    def generate(
        self,
        *,
        input_ids: Int[Tensor, "row seq"],
        attention_mask: Bool[Tensor, "row seq"],
        image_slot: Int[Tensor, "row seq"],
        pixels: UInt8[Tensor, "image height width 3"],
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        num_return_sequences: int = 1,
        guidance: float = 0.0,
        seed: int | None = None,
        drawn: DrawnLogProbs | None = None,
        on_tokens: Heard | None = None,
    ) -> Int[Tensor, "row_times_k new"]:
        """Continue left-padded prompts: greedily at temperature 0, otherwise by sampling.

        A row ends with the end token and is padded after it; the K answers of a prompt are
        neighbours, and its keys and values are computed once. With `seed` the same call gives the
        same tokens, whatever ran before. With `guidance` the second half of the rows are the
        contrasts of the first (`contrasted`). Where tokens are sampled, `drawn` keeps their
        log-probabilities. `on_tokens` hears each token at once, also those after a row's end.
        """
        rows = len(input_ids) * num_return_sequences
        sampling = temperature > 0
        choose = (
            sampler(rows=rows, temperature=temperature, top_p=top_p, drawn=drawn)
            if sampling
            else greedy(guidance=guidance)
        )
        if on_tokens is not None:
            choose = heard(choose, on_tokens)
        was_training = self.training
        self.eval()
        try:
            with seeded(seed, device=input_ids.device), products_for_decoding(input_ids.device):
                tokens = decode(
                    self.language,
                    embeds=self.embed(input_ids, image_slot, pixels),
                    attention_mask=attention_mask,
                    copies=num_return_sequences if sampling else 1,
                    choose=choose,
                    max_new_tokens=max_new_tokens,
                    eos_token_id=self.eos_token_id,
                    pad_token_id=self.pad_token_id,
                )
        finally:
            self.train(was_training)
        return tokens if sampling else tokens.repeat_interleave(num_return_sequences, dim=0)


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
