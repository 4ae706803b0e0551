"""What a language model permits, found out when it is built by comparing it with itself.

Two sequences share a prefix, then differ in a few tokens and end alike. The logits that the bare
model gives each in a row of its own are what every other way of running it must give.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dress.errors import InputError
from dress.modeling.block_attention import mkl_products
from dress.modeling.decoding import decode
from dress.modeling.head import logits_of, output_head
from dress.modeling.language import LanguageModel, token_embedding
from dress.modeling.layer_kinds import unshared_kind
from dress.modeling.running import Layout, Ways, run_language

logger = logging.getLogger(__name__)

PREFIX, OWN, END = 9, 3, 4  # tokens: shared, of one sequence alone, alike again
LENGTH = PREFIX + OWN + END
PADDED = 2  # of the second sequence, where rows are padded
READ = ((0, 4), (0, 8), (0, 10), (0, 13), (1, 10), (1, 13))  # sequence, token
# Of what a sequence's own tokens change in its last logits, or 1 % of the largest logit if that is
# more; in half precision, whose rounding may change as much, of the largest logit.
TOLERANCE, TOLERANCE_HALF = 1e-3, 5e-2


def ways_of(language: LanguageModel, *, generates: bool = True) -> Ways:
    """Return the fastest way in which each sequence has the logits that it has alone.

    A line of the log says what the model does without. InputError where no way is left, or where
    answers token by token have other logits, if it `generates`.
    """
    if output_head(language) is None:
        raise _refusal(language, "has no output embedding")
    kind = unshared_kind(language)
    if token_embedding(language).weight.is_meta:
        return Ways(trees=not kind)  # nothing can be compared
    modes = [(module, module.training) for module in language.modules()]
    language.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(), mkl_products():
            return _ways(language, kind, generates=generates)
    finally:
        for module, mode in modes:
            module.training = mode


def _ways(language: LanguageModel, kind: str, *, generates: bool) -> Ways:
    alone = _alone(language)
    if generates and (failure := _decoding_failure(language, alone)):
        raise _refusal(language, f"cannot answer token by token ({failure})")
    trees = [] if kind else [Ways(), Ways(trimmed=False)]
    for ways in (*trees, Ways(trees=False), Ways(trees=False, trimmed=False)):
        failure = _failure(language, alone, ways)
        if not failure:
            break
        if ways.trees:
            kind = failure
    else:
        raise _refusal(language, f"cannot be run on rows of several sequences ({failure})")
    if not ways.trees:
        message = "%s cannot run token trees (%s): rows are padded instead"
        logger.warning(message, _name(language), kind)
    if failure := _failure(language, alone, ways, head=False):
        message = "%s cannot run its head by itself (%s): all logits of a step are held at once"
        logger.warning(message, _name(language), failure)
        ways = replace(ways, headless=False)
    return ways


@dataclass(frozen=True)
class _Alone:
    """The two sequences, their logits, and what these may differ by in another way."""

    ids: Int[Tensor, "2 seq"]
    logits: Float[Tensor, "2 seq vocab"]
    allowed: float

    @property
    def read(self) -> Float[Tensor, "read vocab"]:
        rows, places = torch.tensor(READ).T
        return self.logits[rows, places]


def _alone(language: LanguageModel) -> _Alone:
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
        raise _refusal(language, f"cannot be run ({_told(error)})") from error
    largest = logits.abs().max().item()
    early, late = (
        (logits[0, part] - logits[1, part]).abs().max().item()
        for part in (slice(PREFIX), slice(behind, LENGTH))
    )
    scale = max(late, largest / 100)
    if not early <= scale / 10:
        raise _refusal(language, "lets a token see those behind it")
    half = torch.finfo(logits.dtype).bits < 32
    return _Alone(ids, logits, TOLERANCE_HALF * largest if half else TOLERANCE * scale)


def _failure(language: LanguageModel, alone: _Alone, ways: Ways, *, head: bool = True) -> str:
    """Say how a way of running the model fails to give the logits of sequences alone, if it does.

    A last pass, in training mode and with embeddings that are no token's, as those of images are,
    shows what raises an error there only.
    """
    try:
        found = _logits(language, alone.ids, ways, head=head)
        language.train()
        _logits(language, alone.ids, ways, head=head, image=slice(1, 5))
    except Exception as raised:
        return _told(raised)
    finally:
        language.eval()
    return _difference(found, alone.read, alone)


def _decoding_failure(language: LanguageModel, alone: _Alone) -> str:
    """Say how answers to two prompts, the shorter one padded on its left, fail, if they do.

    Both begin the first sequence. The longer is all that the two share and is continued as either;
    the shorter twice as the first.
    """
    ids, shorter = alone.ids, PREFIX - OWN
    prompts = torch.stack([ids[0, :PREFIX], ids[0, :PREFIX].roll(OWN)])
    mask = torch.ones_like(prompts, dtype=torch.bool)
    mask[1, :OWN] = False
    sequences, ends = [0, 1, 0, 0], torch.tensor([PREFIX, PREFIX, shorter, shorter])
    steps: list[Tensor] = []

    def follow(logits: Tensor, _: Tensor) -> Tensor:
        steps.append(logits)
        return ids[sequences, ends + len(steps) - 1]

    try:
        decode(
            language,
            embeds=token_embedding(language)(prompts),
            attention_mask=mask,
            copies=2,
            choose=follow,
            max_new_tokens=OWN,
            eos_token_id=-1,
            pad_token_id=0,
        )
    except InputError:
        raise
    except Exception as raised:
        return _told(raised)
    places = ends[:, None] - 1 + torch.arange(OWN)
    expected = alone.logits[torch.tensor(sequences)[:, None], places]
    return _difference(torch.stack(steps, dim=1), expected, alone)


def _difference(found: Tensor, expected: Tensor, alone: _Alone) -> str:
    if found.shape != expected.shape:
        return f"logits have the shape {list(found.shape)}, not {list(expected.shape)}"
    error = (found - expected).abs().max().item()
    if error <= alone.allowed:
        return ""
    return f"logits and those of sequences alone differ by {error:.1e}, allowed {alone.allowed:.1e}"


def _logits(
    language: LanguageModel,
    ids: Int[Tensor, "2 seq"],
    ways: Ways,
    *,
    head: bool,
    image: slice = slice(0),
) -> Float[Tensor, "read vocab"]:
    """Compute the logits at READ in one of the ways; the tokens in `image` give way to no token."""
    layout, rows, nodes = _tree(ids) if ways.trees else _padded(ids)
    embeds = token_embedding(language)(rows).clone()
    embeds[:, image] = embeds[:, image].flip(-1)
    logits, states = run_language(language, embeds, layout, nodes, ways=ways, head=head)
    return logits if head else logits_of(language, states)


def _tree(ids: Int[Tensor, "2 seq"]) -> tuple[Layout, Int[Tensor, "1 node"], Int[Tensor, " read"]]:
    """Put the prefix once in a row, behind it what follows in either sequence."""
    index = torch.arange(2 * LENGTH - PREFIX, device=ids.device)
    second = index >= LENGTH
    in_first = (index >= PREFIX) & ~second
    ends = torch.where(in_first, LENGTH, len(index))[None]
    depth = (index - (LENGTH - PREFIX) * second)[None]
    nodes = [place + sequence * (LENGTH - PREFIX) for sequence, place in READ]
    rows = torch.cat([ids[0], ids[1, PREFIX:]])[None]
    return Layout(ends, depth), rows, torch.tensor(nodes, device=ids.device)


def _padded(ids: Int[Tensor, "2 seq"]) -> tuple[Layout, Int[Tensor, "2 seq"], Int[Tensor, " read"]]:
    """Give each sequence a row, with padding at the end of the second."""
    index = torch.arange(LENGTH, device=ids.device)
    kept = LENGTH - PADDED
    ends = torch.stack([torch.full_like(index, LENGTH), (index + 1).clamp(min=kept)])
    nodes = [sequence * LENGTH + place for sequence, place in READ]
    rows = torch.where(index < ends[:, :1], ids, ids[0, 0])
    return Layout(ends, index.expand(2, -1)), rows, torch.tensor(nodes, device=ids.device)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()):.160}"


def _name(language: LanguageModel) -> str:
    return language.config.name_or_path or language.config.model_type


def _refusal(language: LanguageModel, reason: str) -> InputError:
    return InputError(f"model.language: {_name(language)} {reason}; choose another language model.")
