"""Layers that run again in the backward pass: the same gradients, and less is kept until then."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small import LLAMA, feedback_samples, make_assistant, make_collator, plain_condition
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from dress.assistant import Assistant
from dress.chat.encoders import CritiqueEncoder, Encoder, InstructionEncoder
from dress.chat.preferences import PreferenceEncoder
from dress.errors import InputError
from dress.modeling import head
from dress.modeling.language import add_lora
from dress.modeling.trainable import set_trainable
from dress.objectives.conditional_lm import ConditionalLM
from dress.objectives.dpo import DPO
from dress.objectives.objective import Objective
from dress.types import TokenBatch
from lit_modules.alignment import AlignmentModule

SAMPLES = feedback_samples(2, responses=4, seed=1)
DEEP = LLAMA | {"num_hidden_layers": 4}
PARTS = {
    "all": ["vision", "projector", "language"],
    "adapter": ["projector", "lora"],
    "projector": ["projector"],  # its gradient goes through an LM that is frozen, and in eval mode
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")


def recipe(kind: str, assistant: Assistant) -> tuple[Encoder, Objective]:
    processor = assistant.processor
    if kind == "dpo":
        return PreferenceEncoder(processor=processor), DPO()
    if kind == "critique":
        encoder = CritiqueEncoder(processor=processor, condition=plain_condition(), seed=0)
        return encoder, ConditionalLM(requires="feedback")
    return InstructionEncoder(processor=processor), ConditionalLM()


def learned(kind: str, parts: str, *, checkpointing: bool) -> tuple[dict[str, Tensor], int]:
    """Return the gradients of one batch of trees and the bytes that were kept for them."""
    assistant = make_assistant(SAMPLES, language=DEEP)
    model = assistant.model
    if parts == "adapter":
        torch.manual_seed(1)
        model.language = add_lora(model.language, r=4, alpha=8, dropout=0.1)
    set_trainable(model, PARTS[parts])
    encoder, objective = recipe(kind, assistant)
    objective.prepare(model)
    with torch.no_grad():  # the policy is not its reference, and the adapter does something
        for parameter in model.parameters():
            parameter.add_(torch.full_like(parameter, 0.01) * parameter.requires_grad)
    model.train()
    if checkpointing:
        model.checkpoint_activations()
    (batch,) = make_collator(assistant)([encoder(sample, epoch=0) for sample in SAMPLES])
    assert not len(batch.chain_bounds), "no tree branches"
    torch.manual_seed(2)  # of dropout
    kept = kept_bytes(model, objective, batch)
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, kept


def kept_bytes(model: Any, objective: Objective, batch: TokenBatch) -> int:
    """Go forward and backward; return the bytes of the storages kept between, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = objective(model, batch).loss_sum
    loss.backward()
    return sum(kept.values())


@pytest.mark.parametrize(
    ("kind", "parts", "pieces"),
    [
        ("sft", "all", False),
        ("critique", "adapter", True),
        ("dpo", "adapter", False),
        ("dpo", "all", True),
        ("sft", "projector", True),
    ],
)
def test_the_gradients_are_the_same(
    kind: str, parts: str, pieces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pieces:
        monkeypatch.setattr(head, "LOGITS", 2**12)  # ten tokens of 400 words
    plain, _ = learned(kind, parts, checkpointing=False)
    again, _ = learned(kind, parts, checkpointing=True)
    assert plain.keys() == again.keys() and len(plain) > 1
    assert any(gradient.abs().max() > 1e-3 for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("parts", PARTS)
def test_less_is_kept(parts: str) -> None:
    _, plain = learned("sft", parts, checkpointing=False)
    _, again = learned("sft", parts, checkpointing=True)
    assert again < plain / 2  # three of four layers keep a fraction


def test_the_last_layer_and_what_has_no_gradient_run_once() -> None:
    assistant = make_assistant(SAMPLES, language=DEEP)
    model = assistant.model
    model.checkpoint_activations()
    runs: dict[int, int] = {}
    for number, layer in enumerate(model.language.model.layers):
        layer.mlp.register_forward_pre_hook(
            lambda *_, number=number: runs.update({number: runs.get(number, 0) + 1})
        )
    encoder = InstructionEncoder(processor=assistant.processor)
    (batch,) = make_collator(assistant)([encoder(SAMPLES[0], epoch=0)])
    with torch.no_grad():
        model(batch)
    assert runs == {0: 1, 1: 1, 2: 1, 3: 1}
    model(batch).sum().backward()
    assert runs == {0: 3, 1: 3, 2: 3, 3: 2}


def test_the_module_asks_for_it() -> None:
    assistant = make_assistant(SAMPLES, language=DEEP)
    module = AlignmentModule(
        model=assistant.model,
        objective=ConditionalLM(),
        optimizer=torch.optim.SGD,
        activation_checkpointing=True,
    )
    module.checkpoint_activations()
    assert assistant.model.checkpointing
    assert assistant.model.vision.visual.transformer.grad_checkpointing


def test_layers_that_are_not_found_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_assistant(SAMPLES).model
    monkeypatch.setattr(model.language.config, "num_hidden_layers", 7)
    with pytest.raises(InputError, match=r"module\.activation_checkpointing=false"):
        model.checkpoint_activations()
