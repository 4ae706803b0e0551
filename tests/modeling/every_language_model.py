"""Is each causal LM that transformers has trained right here, or refused before it is built?

`python tests/modeling/every_language_model.py` writes the table of docs/language_models.md anew,
or with names behind it their rows alone.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers
from modeling_helpers import VISION, Sequences, gradients, image, random_pixels, tree_batch, words
from small_shapes import short_reach, small_shape
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from dress.errors import InputError
from dress.modeling import head, self_check
from dress.modeling.build import build_model, new_scalar_head
from dress.modeling.language import token_embedding
from dress.modeling.lvlm import LVLM
from dress.modeling.tokenizer import train_tokenizer
from dress.modeling.tree_attention import Ways
from dress.objectives.functional import target_log_probs
from dress.types import TokenBatch

PAGE = Path(__file__).parents[2] / "docs/language_models.md"
HEADER = "| type | outcome | why |\n|---|---|---|\n"
PIXELS = random_pixels(2)
PREFIX = [*words(1, 10), *image(0), *words(*range(11, 18))]
OTHER = [*words(1), *image(1), *words(20, 21, 22)]
ROWS: tuple[Sequences, ...] = (
    (
        [*PREFIX, *words(30, 31, 32, 33, 34, 35, 36, 2)],
        [*PREFIX, *words(30, 31, 42, 33, 34, 2)],
        [*PREFIX, *words(45, 33, 34, 35, 36, 37, 2)],
    ),
    ([*OTHER, *words(30, 31, 32, 2)], [*OTHER, *words(50, 31, 32, 33, 2)]),
)
SUPERVISED_FROM = 5
PIECE = 3  # targets
EXACT, ROUNDED = 1e-5, 2e-3  # largest difference, of the largest figure


@dataclass(frozen=True)
class Verdict:
    """What becomes of a type: trees, padded, refused, unbuilt (by transformers), wrong or dies."""

    outcome: str
    why: str = ""

    def row(self, model_type: str) -> str:
        """Write it as a line of the table, without what differs from machine to machine."""
        why = re.sub(r"differ by \S+, allowed [\d.e+-]+", "differ", self.why)
        return f"| `{model_type}` | {self.outcome} | {why.replace('|', ' ')} |"


def judged(model_type: str) -> Verdict:
    """Build a small model of a type as a user would and train it on a step."""
    try:
        shape = small_shape(model_type)
    except Exception:  # of its defaults, to which no key is needed
        shape = {"model_type": model_type}
    try:
        torch.manual_seed(0)
        with patch.object(self_check.logger, "warning") as warning:
            ways = built(shape).ways
    except InputError as error:
        of_transformers = re.search(r"transformers builds no .*?\((.*)\);", str(error))
        if of_transformers:
            return Verdict("unbuilt", of_transformers[1])
        return Verdict("refused", str(error).removeprefix("model.language: ").split(";")[0])
    except Exception as error:
        return Verdict("dies", f"at build: {told(error)}")
    reasons = [call.args[-1] for call in warning.call_args_list]
    try:
        fault = compared(in_earnest(shape, ways))
    except Exception as error:
        return Verdict("dies", told(error))
    if fault:
        return Verdict("wrong", fault)
    if not ways.headless:
        reasons[-1] = f"its head is never left out: {reasons[-1]}"
    return Verdict("trees" if ways.trees else "padded", "; ".join(reasons))


def in_earnest(shape: Mapping[str, Any], ways: Ways) -> LVLM:
    """Build a model in which windows end within a few tokens and every layer matters."""
    try:
        model = built(short_reach(shape))
    except InputError:
        model = built(shape)
    model.ways = ways
    redraw(model)
    return model


def built(shape: Mapping[str, Any]) -> LVLM:
    language = {"name": None, "config": shape, "random_init": True}
    vision = {"name": None, "pretrained": None, "random_init": True, "config": VISION}
    spec = {"vision": vision, "language": language, "projector": {"kind": "linear"}}
    return build_model(spec, tokenizer=tokenizer())


@cache
def tokenizer() -> Any:
    return train_tokenizer(["a red circle"], vocab_size=300)


@torch.no_grad()
def redraw(model: LVLM) -> None:
    """Draw the LM's weights so large that every layer matters; with the usual 0.02 none does."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.language.parameters():
        noise = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        if parameter.ndim > 1:
            parameter.copy_(noise * 1.5 * parameter[0].numel() ** -0.5)
        else:
            parameter.add_(noise * 0.1)
    embedding = token_embedding(model.language).weight
    embedding.mul_(embedding.shape[1] ** 0.5)


def compared(model: LVLM) -> str:
    """Say where a step differs from its sequences alone, in figures or gradients, if it does."""
    model.language.train()
    model.scalar_head = new_scalar_head(head.output_head(model.language).in_features)
    rows = ROWS if model.ways.trees else [[s] for sequences in ROWS for s in sequences]
    batch = tree_batch(rows, pixels=PIXELS, supervised_from=SUPERVISED_FROM)
    try:
        expected, tolerance = alone(model.double()), EXACT
    except (RuntimeError, NotImplementedError):  # products that torch has in float32 alone
        expected, tolerance = alone(model.float()), ROUNDED
    fault = differing(expected, together(model, batch), tolerance)
    with patch.object(head, "LOGITS", PIECE * len(tokenizer()) + 1):
        fault = fault or differing(expected, together(model, batch), tolerance)
    return fault


def differing(expected: dict[str, Tensor], found: dict[str, Tensor], tolerance: float) -> str:
    for name, figure in expected.items():
        error = (figure - found.get(name, torch.zeros_like(figure))).abs().max().item()
        if not error <= tolerance * max(figure.abs().max().item(), 1e-2):
            return f"{name} differs by {error:.1e} of {figure.abs().max():.1e}"
    return ""


def together(model: LVLM, batch: TokenBatch) -> dict[str, Tensor]:
    (log_probs,) = model(batch, target_log_probs)
    return figures(model, log_probs, model.scores(batch))


def alone(model: LVLM) -> dict[str, Tensor]:
    """Run each sequence by itself through the bare Hugging Face model."""
    log_probs, scores, features = [], [], model.image_features(PIXELS).flatten(0, 1)
    for sequence in (s for sequences in ROWS for s in sequences):
        ids = torch.tensor([token for token, _ in sequence])
        slots = torch.tensor([slot for _, slot in sequence])
        embeds = token_embedding(model.language)(ids)
        embeds = torch.where((slots >= 0)[:, None], features[slots].to(embeds.dtype), embeds)
        seen: list[Tensor] = []
        handle = head.output_head(model.language).register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(inputs[0])
        )
        logits = model.language(inputs_embeds=embeds[None], use_cache=False).logits[0]
        handle.remove()
        targets = ids[SUPERVISED_FROM:, None]
        said = logits[SUPERVISED_FROM - 1 : -1].log_softmax(dim=-1).gather(1, targets)
        log_probs.append(said[:, 0])
        scores.append(model.scalar_head(seen[0][0, -1])[0])
    return figures(model, torch.cat(log_probs), torch.stack(scores))


def figures(model: LVLM, log_probs: Tensor, scores: Tensor) -> dict[str, Tensor]:
    """Name log-probabilities, scores and gradients; each token and score counts differently."""
    weights = torch.arange(1, len(log_probs) + 1).to(log_probs) / len(log_probs)
    loss = (log_probs * weights).sum() + (scores * torch.arange(1, len(scores) + 1)).sum()
    loss.backward()
    found = {"log_probs": log_probs.detach(), "scores": scores.detach()} | gradients(model)
    model.zero_grad()
    return found


def main(types: Sequence[str]) -> None:
    """Judge types, all if none is named, and replace their rows of the table one by one."""
    text, table, ending = page_parts()
    text = re.sub(r"transformers \d[\d.]*", f"transformers {transformers.__version__}", text)
    rows = {line.split("`")[1]: line for line in table.splitlines()}
    for model_type in types or MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        rows[model_type] = judged(model_type).row(model_type)
        print(rows[model_type], flush=True)
        present = [rows[name] for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name in rows]
        PAGE.write_text(f"{text}{HEADER}" + "".join(f"{row}\n" for row in present) + ending)


def page_parts() -> tuple[str, str, str]:
    """Return what stands before the rows of the page, the rows, and what stands behind them."""
    text, _, rest = PAGE.read_text().partition(HEADER)
    table, _, ending = rest.partition("\n\n")
    return text, f"{table}\n", f"\n{ending}"


def told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()):.160}"


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    main(sys.argv[1:])
