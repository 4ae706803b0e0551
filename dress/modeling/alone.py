"""Two sequences run alone by the bare language model: what any other way to run it must give.

They share a prefix, then differ in a few tokens and end alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dress.errors import InputError
from dress.modeling.language import LanguageModel, full_precision, token_embedding

PREFIX, OWN, END = 9, 3, 4  # tokens: shared, of one sequence alone, alike again
LENGTH = PREFIX + OWN + END
PADDED = 2  # of the second sequence, where rows are padded
READ = ((0, 4), (0, 8), (0, 10), (0, 13), (1, 10), (1, 13))  # sequence, token
# What logits may differ by: a share of what a sequence's own tokens change in its last logits, or
# of this share of the largest logit if that is more. Half precision rounds more, and experts that
# are all but equal then change places.
TOLERANCE, LEAST = 1e-3, 1e-2
TOLERANCE_HALF, LEAST_HALF = 0.25, 0.2


@dataclass(frozen=True)
class Alone:
    """The two sequences, their logits, and what these may differ by in another way."""

    ids: Int[Tensor, "2 seq"]
    logits: Float[Tensor, "2 seq vocab"]
    allowed: float

    def differ(
        self, found: Float[Tensor, "read vocab"], places: Sequence[tuple[int, int]] = READ
    ) -> str:
        """Say how logits differ from those of tokens, each a sequence's and its place, if so."""
        rows, tokens = torch.tensor(places).T
        expected = self.logits[rows, tokens]
        if found.shape != expected.shape:
            return f"logits have the shape {list(found.shape)}, not {list(expected.shape)}"
        error = (found - expected).abs().max().item()
        if error <= self.allowed:
            return ""
        figures = f"{error:.1e}, allowed {self.allowed:.1e}"
        return f"logits and those of sequences alone differ by {figures}"


class Rows(NamedTuple):
    """The two sequences as a batch, and the nodes (flat row * seq indices) of READ."""

    ids: Int[Tensor, "row seq"]
    subtree_end: Int[Tensor, "row seq"]
    position_ids: Int[Tensor, "row seq"]
    nodes: Int[Tensor, " read"]


@contextlib.contextmanager
def undisturbed(language: LanguageModel) -> Iterator[None]:
    """Compare at full precision and in eval mode; modes and random numbers stay as they were."""
    device = token_embedding(language).weight.device
    modes = [(module, module.training) for module in language.modules()]
    language.eval()
    try:
        forked = [device] if device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(forked), full_precision():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def sequences_alone(language: LanguageModel) -> Alone:
    """Run the bare model on each sequence; InputError where a token sees those behind it."""
    weight = token_embedding(language).weight
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(len(weight), (1, LENGTH), generator=generator).repeat(2, 1)
    behind = PREFIX + OWN
    ids[1, PREFIX:behind] = (ids[0, PREFIX:behind] + len(weight) // 2) % len(weight)
    ids = ids.to(weight.device)
    try:
        logits = language(input_ids=ids, use_cache=False).logits
    except Exception as error:
        raise refusal(language, f"cannot be run ({error_line(error)})") from error
    largest = logits.abs().max().item()
    early, late = (
        (logits[0, part] - logits[1, part]).abs().max().item()
        for part in (slice(PREFIX), slice(behind, LENGTH))
    )
    if not early <= 0.1 * max(late, LEAST * largest):
        raise refusal(language, "lets a token see those behind it")
    half = torch.finfo(weight.dtype).bits < 32
    share, least = (TOLERANCE_HALF, LEAST_HALF) if half else (TOLERANCE, LEAST)
    return Alone(ids, logits, allowed=share * max(late, least * largest))


def tree_rows(ids: Int[Tensor, "2 seq"]) -> Rows:
    """Put the prefix once in a row, behind it what follows in either sequence."""
    index = torch.arange(2 * LENGTH - PREFIX, device=ids.device)
    second = index >= LENGTH
    in_first = (index >= PREFIX) & ~second
    nodes = [place + sequence * (LENGTH - PREFIX) for sequence, place in READ]
    return Rows(
        ids=torch.cat([ids[0], ids[1, PREFIX:]])[None],
        subtree_end=torch.where(in_first, LENGTH, len(index))[None],
        position_ids=(index - (LENGTH - PREFIX) * second)[None],
        nodes=torch.tensor(nodes, device=ids.device),
    )


def padded_rows(ids: Int[Tensor, "2 seq"]) -> Rows:
    """Give each sequence a row, with padding at the end of the second."""
    index = torch.arange(LENGTH, device=ids.device)
    kept = torch.tensor([[LENGTH], [LENGTH - PADDED]], device=ids.device)
    nodes = [sequence * LENGTH + place for sequence, place in READ]
    return Rows(
        ids=torch.where(index < kept, ids, ids[0, 0]),
        subtree_end=torch.maximum(index + 1, kept),
        position_ids=index.expand(2, -1),
        nodes=torch.tensor(nodes, device=ids.device),
    )


def error_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()):.160}"


def name_of(language: LanguageModel) -> str:
    return language.config.name_or_path or language.config.model_type


def refusal(language: LanguageModel, reason: str) -> InputError:
    return InputError(
        f"model.language: {name_of(language)} {reason}; choose another language model."
    )
