"""Weights in 4 bits: what is rounded, what trains, what is saved, and what is refused."""

from __future__ import annotations

import json
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from dress.errors import InputError
from dress.modeling.build import build_lvlm
from dress.modeling.checkpoint import load_weights, merge_lora, save_weights
from dress.modeling.four_bit import is_quantized, nf4
from dress.modeling.hub.llava_writer import write_model
from dress.modeling.language import causal_lm
from dress.modeling.lvlm import LVLM
from dress.modeling.projector import linear_projector
from dress.modeling.specification import check_quantization
from dress.modeling.tokenizer import train_tokenizer
from dress.modeling.trainable import set_trainable
from dress.modeling.vision import open_clip_tower
from tests.integration.small import LLAMA, VISION

SMALL: dict[str, Any] = {"config": LLAMA, "vocab_size": 300, "random_init": True}
LORA = {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
WIDEST = (1.0 - 0.6961928) / 2  # half the largest gap between NF4's levels, of a block's largest
needs_package = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="needs pip install bitsandbytes"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("llama")
    shape = LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        initializer_range=0.2,
    )
    LlamaForCausalLM(shape).save_pretrained(path)
    return path


def built(folder: Path, lora: dict[str, Any] | None = LORA) -> LVLM:
    tokenizer = train_tokenizer(["a red circle"], vocab_size=290)
    torch.manual_seed(1)
    language = causal_lm(name=str(folder), quantization="nf4", lora=lora)
    vision = open_clip_tower(**VISION)
    return build_lvlm(
        vision=vision, language=language, projector=linear_projector, tokenizer=tokenizer
    )


def logits(model: LVLM) -> torch.Tensor:
    with torch.no_grad():
        return model.eval().language(torch.arange(5, 25)[None]).logits


@needs_package
def test_the_base_is_rounded_to_nf4_with_the_network_blocked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blocked(*_: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", blocked)
    monkeypatch.setattr(socket, "getaddrinfo", blocked)
    from bitsandbytes.functional import dequantize_4bit

    plain = causal_lm(name=str(folder))
    rounded = causal_lm(name=str(folder), quantization="nf4")
    assert is_quantized(rounded) and not is_quantized(plain)
    names = [n for n, m in plain.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"]
    assert len(names) == 14
    for name in names:
        weight = plain.get_submodule(name).weight
        packed: Any = rounded.get_submodule(name).weight
        assert packed.dtype == torch.uint8 and packed.numel() == weight.numel() // 2
        back = dequantize_4bit(packed.data, packed.quant_state).reshape(-1, 64)
        blocks = weight.reshape(-1, 64)
        largest = blocks.abs().amax(dim=1, keepdim=True)
        assert ((back - blocks).abs() <= 1.1 * WIDEST * largest).all()  # a tenth for the scales
        assert not torch.equal(back, blocks)
    assert torch.equal(rounded.lm_head.weight, plain.lm_head.weight)


@needs_package
def test_one_adapter_trains_through_the_stages_and_alone_is_saved(
    folder: Path, tmp_path: Path
) -> None:
    model = built(folder)
    report = set_trainable(model, ["projector", "lora"])
    assert {c.part: c.trainable > 0 for c in report.counts}["language"] is False
    loss = model.language(torch.arange(5, 25)[None]).logits.float().logsumexp(-1).mean()
    loss.backward()
    assert isinstance(model.language, PeftModel)
    trained = [p for p in model.language.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None for p in trained)
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(torch.randn_like(parameter) / 10)
    base = {"vision": None, "projector": None, "language": str(folder)}
    save_weights(model, tmp_path, base=base)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["base"]["language"] == str(folder)
    assert {entry["part"] for entry in manifest["files"].values()} == {"vision", "projector"}
    assert [entry["settings"]["r"] for entry in manifest["adapters"]] == [4]
    later = built(folder)  # as the next stage begins, and as a model is loaded to answer
    assert not torch.allclose(logits(later), logits(model))
    load_weights(later, tmp_path, base=base, merge_adapters=True)
    assert torch.equal(logits(later), logits(model))
    assert isinstance(later.language, PeftModel) and later.merged_adapters == []
    with pytest.raises(InputError, match="into which no adapter can be merged"):
        merge_lora(later)
    with pytest.raises(InputError, match="into which no adapter can be merged"):
        write_model(later, tmp_path, base=None, changed={"language"}, shard_size="1GB")
    with pytest.raises(InputError, match=r"keep its model\.language\.lora"):
        load_weights(built(folder, LORA | {"r": 2}), tmp_path, base=base, merge_adapters=True)


@pytest.mark.parametrize(
    ("changed", "trained", "sentence"),
    [
        ({"quantization": "int8"}, ["lora"], "choose nf4, or null"),
        ({"random_init": True}, ["lora"], "these would be random .init_from=random"),
        ({"lora": None}, ["projector"], "leaves weights that do not train"),
        ({}, ["language"], r"give .*model.trainable.stage1 without language"),
        ({}, ["projector", "lora"], "pip install bitsandbytes"),
    ],
)
def test_what_cannot_rest_in_4_bits(
    changed: dict[str, Any],
    trained: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dress.modeling.specification.find_spec", lambda _: None)
    language = {"quantization": "nf4", "random_init": False, "lora": LORA, **changed}
    spec = {"language": language, "trainable": {"stage1": trained}}
    with pytest.raises(InputError, match=sentence):
        check_quantization(spec, "stage1")
    with pytest.raises(InputError, match="nf4 is for a language model with a name of its own"):
        check_quantization(spec | {"name": "a/b", "language": {"quantization": "nf4"}}, "stage1")


@pytest.mark.parametrize(
    "build", [nf4, lambda _: causal_lm(**SMALL, lora=LORA)], ids=["4 bits", "adapter"]
)
def test_bitsandbytes_finds_no_kernels_when_it_is_imported(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of its name tries to fetch code at its import, as bitsandbytes does."""
    (tmp_path / "bitsandbytes-0.50.2.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: bitsandbytes\nVersion: 0.50.2\n"
    (tmp_path / "bitsandbytes-0.50.2.dist-info/METADATA").write_text(metadata)
    (tmp_path / "kernels.py").write_text("")
    (tmp_path / "bitsandbytes.py").write_text(
        "import types\nnn, fetched = types.SimpleNamespace(), True\n"
        "try:\n    import kernels\nexcept ImportError:\n    fetched = False\n"
    )
    for name in ("bitsandbytes", "kernels"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("peft.tuners.lora.model.is_bnb_available", lambda: False)
    monkeypatch.setattr("peft.tuners.lora.model.is_bnb_4bit_available", lambda: False)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        build(torch.float32)
        assert sys.modules["bitsandbytes"].fetched is False
        assert find_spec("kernels") is not None  # for all others it is there
    finally:
        for name in ("bitsandbytes", "kernels"):
            sys.modules.pop(name, None)


def test_random_weights_are_not_rounded() -> None:
    with pytest.raises(InputError, match="only released weights"):
        causal_lm(config={"model_type": "llama"}, random_init=True, quantization="nf4")
