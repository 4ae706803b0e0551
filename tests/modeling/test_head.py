"""A large vocabulary is read in pieces: the same figures and gradients, few logits at a time."""

from __future__ import annotations

import pytest
import torch
from modeling_helpers import (
    GPT2,
    LLAMA,
    LORA,
    VOCAB_SIZE,
    gradients,
    randomize_adapter,
    tiny_lvlm,
    tree_batch,
)
from test_lvlm import PIXELS, ROWS
from torch import Tensor

from dress.modeling import head
from dress.modeling.build import new_scalar_head
from dress.modeling.lvlm import LVLM
from dress.modeling.reference import Reference
from dress.objectives.functional import is_top_token, target_entropies, target_log_probs
from dress.types import TokenBatch

PIECE = 3  # targets
READS = (target_log_probs, is_top_token, target_entropies)
CAPPED = LLAMA | {
    "model_type": "gemma2",
    "final_logit_softcapping": 0.5,
    "layer_types": ["full_attention"] * 2,
    "head_dim": 8,
    "num_key_value_heads": 4,
}
SCALED = LLAMA | {"model_type": "cohere", "logit_scale": 0.0625, "num_key_value_heads": 4}
EXPERTS = {"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 1}
CONFIGS = {
    "llama": LLAMA,
    "tied": LLAMA | {"tie_word_embeddings": True},
    "gpt2": GPT2,
    "capped": CAPPED,
    "scaled": SCALED,
    "experts": LLAMA | EXPERTS | {"num_key_value_heads": 4},
}


def batch() -> TokenBatch:
    found = tree_batch(ROWS, pixels=PIXELS, supervised_from=7)
    assert len(found.target_ids) > len(found.logit_node) > 2 * PIECE  # some follow one state
    return found


def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "LOGITS", PIECE * VOCAB_SIZE + 1)


def rows_of_the_head(model: LVLM) -> list[int]:
    """Return a list that will hold how many states each run of the head sees."""
    seen: list[int] = []
    head.output_head(model.language).register_forward_hook(
        lambda _, inputs, output: seen.append(output.shape[1])
    )
    return seen


def outcome(model: LVLM) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    found = model(batch(), *READS)
    log_probs, _, entropies = found
    weights = torch.arange(1, len(log_probs) + 1).to(log_probs)  # each target counts differently
    (log_probs * weights + entropies * weights.flip(0)).sum().backward()
    own = gradients(model)
    model.zero_grad()
    return tuple(each.detach() for each in found), own


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_pieces_give_the_figures_and_gradients_of_the_whole(
    config: dict, lora: dict | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_float32_matmul_precision("highest")
    exact = "num_local_experts" not in config  # whose products torch has in float32 alone
    model = tiny_lvlm(config, lora=lora, attention="eager").eval()
    if exact:
        model.double()
    if lora:
        randomize_adapter(model)
    seen = rows_of_the_head(model)
    whole, wanted = outcome(model)
    assert seen == [len(batch().logit_node)]
    in_pieces(monkeypatch)
    pieces, found = outcome(model)
    for one, other in zip(pieces, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6)  # entropies are float32
    torch.testing.assert_close(pieces[0], whole[0], rtol=0, atol=1e-12 if exact else 2e-6)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        scale = max(1.0, gradient.abs().max().item())
        bound = scale * (2e-6 if exact else 1e-5)
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=bound, msg=name)


def test_no_more_logits_than_a_piece_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_lvlm().eval()
    seen = rows_of_the_head(model)
    in_pieces(monkeypatch)
    kept: list[torch.Size] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        (log_probs,) = model(batch(), target_log_probs)
    pieces = seen[1:]
    assert seen[0] == 0 and sum(pieces) == len(log_probs) and max(pieces) == PIECE
    of_vocabulary = {tuple(shape) for shape in kept if shape[-1:] == (VOCAB_SIZE,)}
    assert of_vocabulary == {(32, VOCAB_SIZE)}  # the weights
    log_probs.sum().backward()
    assert sorted(seen[1 + len(pieces) :]) == sorted(pieces)  # each once more


def test_a_reference_reads_in_pieces_with_its_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_lvlm().double().eval()
    (before,) = model(batch(), target_log_probs)
    reference = Reference(model)
    with torch.no_grad():
        head.output_head(model.language).weight.mul_(2)
    in_pieces(monkeypatch)
    (found,) = reference(model, batch(), target_log_probs)
    torch.testing.assert_close(found, before.detach(), rtol=0, atol=1e-12)
    assert not found.requires_grad


def test_autocast_holds_in_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_lvlm().eval()
    outcomes = []
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (log_probs,) = model(batch(), target_log_probs)
        log_probs.sum().backward()
        outcomes.append((log_probs.detach(), gradients(model)))
        model.zero_grad()
        in_pieces(monkeypatch)
    (whole, wanted), (pieces, found) = outcomes
    torch.testing.assert_close(pieces, whole, rtol=1e-5, atol=1e-5)
    for name, gradient in wanted.items():
        scale = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(
            found[name], gradient, rtol=0, atol=3e-2 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_a_reward_model_computes_no_logits() -> None:
    model = tiny_lvlm()
    model.scalar_head = new_scalar_head(32)
    seen = rows_of_the_head(model)
    model.scores(batch()).sum().backward()
    model.values(batch()).sum().backward()
    assert seen == [0, 0]
