"""Muon and AdamW as one optimizer: who updates what, by how much, and after a resume."""

import copy

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from lit_modules.muon import BatchedMuon, MuonAdamW, orthogonalized, orthogonalized_by_all
from lit_modules.parameters import parameter_groups
from lit_modules.schedules import warmup_cosine


def language(tied=False):
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=20,
            hidden_size=8,
            intermediate_size=12,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=tied,
        )
    )


def optimizer_of(model, **options):
    settings = {"lr": 1e-3, "muon_scale": 10.0, "weight_decay": 0.0} | options
    return MuonAdamW(parameter_groups(model), **settings)


def step(model, optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def names(model, group):
    own = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in own}


@pytest.mark.parametrize("tied", [False, True])
def test_hidden_are_the_linear_layers_between_embedding_and_head(tied):
    model = language(tied)
    matrices, hidden, vectors = parameter_groups(model)
    ends = {"model.embed_tokens.weight"} | (set() if tied else {"lm_head.weight"})
    assert names(model, matrices) == ends
    assert names(model, hidden) == {
        f"model.layers.0.{part}.weight"
        for part in (
            *(f"self_attn.{which}_proj" for which in "qkvo"),
            *(f"mlp.{which}_proj" for which in ("gate", "up", "down")),
        )
    }
    assert all("norm" in name for name in names(model, vectors)) and vectors["weight_decay"] == 0


def test_attention_of_the_tower_is_hidden_and_its_patches_are_not():
    tower = nn.ModuleDict({"patches": nn.Conv2d(3, 8, 4), "attention": nn.MultiheadAttention(8, 2)})
    matrices, hidden, _ = parameter_groups(tower)
    assert names(tower, matrices) == {"patches.weight"}
    assert names(tower, hidden) == {"attention.in_proj_weight", "attention.out_proj.weight"}


def test_an_update_of_a_hidden_matrix_is_nearly_orthogonal():
    model = nn.Linear(32, 32, bias=False)
    before = model.weight.detach().clone()
    step(model, optimizer_of(model), seed=1)
    singular = torch.linalg.svdvals((before - model.weight).detach() / 0.01)
    # five Newton-Schulz steps with these coefficients end between 0.7 and 1.2; the smallest of a
    # random matrix may still be on the way
    assert singular.max() < 1.25 and singular.median() > 0.65


@pytest.mark.parametrize("shape", [(6, 6), (12, 4), (4, 12)])
def test_singular_values_follow_the_polynomial(shape):
    a, b, c = 3.4445, -4.7750, 2.0315
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, *shape, generator=generator)
    found = orthogonalized(matrices, coefficients=(a, b, c), steps=5, eps=1e-7)
    for matrix, direction in zip(matrices.double(), found, strict=True):
        u, s, v = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
        for _ in range(5):
            s = a * s + b * s**3 + c * s**5
        torch.testing.assert_close(direction.double(), u @ s.diag() @ v, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_rank_computes_its_part_in_one_type_and_is_sent_the_others(rank, monkeypatch):
    sent = []

    def exchange(parts, owners):
        sent.append(owners)
        return parts

    monkeypatch.setattr("lit_modules.muon.place", lambda: (rank, 3))
    monkeypatch.setattr("lit_modules.muon.from_owners", exchange)
    settings = {"coefficients": (3.4445, -4.7750, 2.0315), "steps": 5, "eps": 1e-7}
    matrices = list(torch.randn(2, 4, 6, dtype=torch.bfloat16))
    whole = orthogonalized(torch.stack(matrices), **settings)
    for index, part in enumerate(orthogonalized_by_all(matrices, **settings)):
        assert part.dtype == torch.float32 and part.shape == (4, 6)
        if index == rank:
            torch.testing.assert_close(part, whole[index])
    assert sent == [[0, 1]]  # the third rank has no part


def test_it_is_torch_s_muon_but_for_its_precision():
    model, twin = language(), language()
    groups = [parameter_groups(which)[1]["params"] for which in (model, twin)]
    settings = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}
    mine, theirs = BatchedMuon(groups[0], **settings), torch.optim.Muon(groups[1], **settings)
    for seed in range(3):
        step(model, mine, seed)
        step(twin, theirs, seed)
    for one, other in zip(*groups, strict=True):
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)  # of three steps of 0.01


def test_other_parameters_get_exactly_adamw():
    model, twin = language(), language()
    step(model, optimizer_of(model), seed=1)
    step(twin, torch.optim.AdamW(twin.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0), 1)
    for name in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"):
        torch.testing.assert_close(model.get_parameter(name), twin.get_parameter(name))
    changed = "model.layers.0.mlp.up_proj.weight"
    assert not torch.allclose(model.get_parameter(changed), twin.get_parameter(changed))


def test_the_schedule_reaches_both():
    optimizer = optimizer_of(language())
    warmup_cosine(optimizer, warmup_steps=4, max_steps=40, final_lr=0.1)
    rates = {bool(group.get("hidden")): group["lr"] for group in optimizer.param_groups}
    assert rates == {False: pytest.approx(1e-3 / 4), True: pytest.approx(1e-2 / 4)}
    assert all(
        mine is group
        for part in optimizer.parts.values()
        for group in part.param_groups
        for mine in optimizer.param_groups
        if mine["params"] is group["params"]
    )


def test_a_resumed_optimizer_goes_on_bit_for_bit():
    model = language()
    optimizer = optimizer_of(model)
    schedule = warmup_cosine(optimizer, warmup_steps=2, max_steps=9, final_lr=0.1)
    for seed in range(3):
        step(model, optimizer, seed)
        schedule.step()
    twin = copy.deepcopy(model)
    resumed = optimizer_of(twin)
    later = warmup_cosine(resumed, warmup_steps=2, max_steps=9, final_lr=0.1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    later.load_state_dict(schedule.state_dict())
    for seed in range(3, 6):
        for one, its, rate in ((model, optimizer, schedule), (twin, resumed, later)):
            step(one, its, seed)
            rate.step()
    for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_a_model_without_hidden_matrices_trains_by_adamw_alone():
    model = nn.Embedding(4, 3)
    optimizer = optimizer_of(model)
    assert list(optimizer.parts) == ["adamw"]
    before = model.weight.detach().clone()
    step(model, optimizer, seed=0)
    assert not torch.equal(before, model.weight)
