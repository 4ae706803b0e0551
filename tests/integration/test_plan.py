"""job=plan: counts by hand, the peak of the same pass over real tensors, and what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from small import make_assistant

from dress.jobs.job import Job
from dress.jobs.planned import Devices, on_one_device
from dress.modeling.footprint import (
    LiveBytes,
    batch_of_rows,
    gathered_bytes,
    make_gradients,
    shapes_of,
    training_pass,
)
from dress.modeling.lvlm import LVLM
from dress.modeling.trainable import set_trainable
from dress.objectives.functional import target_log_probs
from dress.types import TokenBatch

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
WORDS = {"model_type": "llama", "vocab_size": 400}
SHAPE = WORDS | {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
LANGUAGE = SHAPE | {"num_key_value_heads": 2, "intermediate_size": 128}
TOWER = {"image_size": 48, "patch_size": 16, "width": 32, "layers": 2, "head_width": 16}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")


@pytest.fixture
def plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Any]]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):

        def run(*overrides: str) -> dict[str, Any]:
            typed = ["job=plan", *overrides, f"paths.artifacts={tmp_path}"]
            artifact = Job(cfg=compose("run", typed), overrides=typed).run()
            assert artifact.name.startswith("plan_")
            found: dict[str, Any] = json.loads((artifact.path / "plan.json").read_text())
            return found | {"text": capsys.readouterr().out}

        yield run


SMALL = ["experiment=dress_stage2", "optimizer=adamw", "plan.lengths=[64]"]


def test_a_small_model_by_hand(plan: Callable[..., Any]) -> None:
    found = plan(*SMALL, "model=tiny")
    parts = {part["part"]: part for part in found["parts"]}
    # width 128, 4 layers, 4 heads, 384 within, 1024 words twice: embeddings and head
    layer = 4 * 128 * 128 + 3 * 128 * 384 + 2 * 128
    assert parts["language"]["total"] == 4 * layer + 2 * 1024 * 128 + 128
    assert parts["projector"]["trainable"] == 128 * 128 + 128
    trained = sum(part["trainable"] for part in parts.values())
    assert trained == parts["language"]["total"] + parts["projector"]["total"]
    rest = found["rest"]
    assert rest["gradients"] == 4 * trained and rest["reference"] == 0
    total = sum(part["total"] for part in parts.values())
    assert 4 * total <= rest["weights"] < 4 * total + 4096  # buffers: the angles of positions
    tensors = rest["optimizer"] - 2 * 4 * trained  # two moments each, and a count of steps
    assert 0 <= tensors < 4096
    (setting,) = found["settings"]
    assert setting["cache"] == 64 * 4 * 2 * 128 * 4  # tokens, layers, keys and values, width
    assert setting["time"] is None and setting["rows_that_fit"] > 100
    assert set(setting["activations"]) == {"1", "4"}  # rows_per_batch of the experiment
    again = plan(*SMALL, "model=tiny")
    assert again["rest"] == rest and "exists (fresh=true" in again["text"]
    assert re.search(r"language +1,\d{3},\d{3}", found["text"]) and "this machine" in found["text"]


@pytest.mark.slow
def test_what_an_objective_keeps_is_counted(plan: Callable[..., Any]) -> None:
    found = plan("experiment=silkie_dpo", "model=tiny", "optimizer=adamw", "plan.lengths=[64]")
    assert found["rest"]["reference"] == found["rest"]["gradients"]


@pytest.mark.slow
def test_a_value_model_trains_too(plan: Callable[..., Any]) -> None:
    tiny = ("model=tiny", "optimizer=adamw", "plan.lengths=[64]")
    ppo, grpo = (plan(f"experiment={name}", *tiny) for name in ("llava_rlhf_ppo", "grpo"))
    ratio = {key: ppo["rest"][key] / grpo["rest"][key] for key in ("weights", "gradients")}
    assert ratio["weights"] == pytest.approx(3 / 2, rel=0.01)  # with a value model beside both
    # the value model's own head rests: 1024 words less
    assert 1.7 < ratio["gradients"] < 2


@pytest.fixture(scope="module")
def real() -> LVLM:
    return make_assistant([], language=LANGUAGE).model


def prepared(model: LVLM, *parts: str) -> LVLM:
    set_trainable(model, parts)
    model.train()
    for parameter in model.parameters():
        parameter.grad = None
    make_gradients([model])
    return model


def shapes(model: LVLM, *parts: str) -> LVLM:
    config = {"name": None, "random_init": True, "dtype": "float32", "attention": "eager"}
    spec = {
        "vision": {"name": None, "pretrained": None, "random_init": True, "config": TOWER},
        "projector": {"kind": "linear"},
        "language": {**config, "config": LANGUAGE},
    }
    spec["vision"] |= {"image_size": 48, "config": TOWER | {"mlp_ratio": 2.0}}
    return prepared(shapes_of(spec, fused=False), *parts)


def loss_of(model: LVLM) -> Callable[[TokenBatch], torch.Tensor]:
    return lambda batch: -model(batch, target_log_probs)[0].sum()


@pytest.mark.parametrize("parts", [("projector", "language"), ("vision", "projector")])
@pytest.mark.parametrize("again", [False, True], ids=["kept", "checkpointed"])
def test_fake_tensors_take_what_real_ones_take(parts: tuple[str, ...], again: bool) -> None:
    real, found = make_assistant([], language=LANGUAGE).model, []
    for model in (prepared(real, *parts), shapes(real, *parts)):
        if again:
            model.checkpoint_activations()
        passed = training_pass([model], loss_of(model), rows=2, length=80, precision="32-true")
        found.append(passed)
    assert found[1].peak == pytest.approx(found[0].peak, rel=0.01)
    assert found[1].flops == found[0].flops


@pytest.mark.slow
def test_memory_is_linear_in_rows_and_less_with_checkpointing(real: LVLM) -> None:
    model = shapes(real, "projector", "language")
    one, two, four = (
        training_pass([model], loss_of(model), rows=n, length=128, precision="32-true").peak
        for n in (1, 2, 4)
    )
    assert four - two == pytest.approx(2 * (two - one), rel=0.02)
    model.checkpointing = True
    again = training_pass([model], loss_of(model), rows=4, length=128, precision="32-true")
    assert again.peak < 0.7 * four  # the logits of 400 words are in both


def test_arithmetic_by_hand(real: LVLM) -> None:
    """Forward: the products of 64 tokens with each matrix; attention's own on top."""
    model = shapes(real, "projector", "language")
    passed = training_pass([model], loss_of(model), rows=1, length=64, precision="32-true")
    read = 64 - 1 - 9  # of the last layer and the head
    matrices = 2 * 64 * 64 + 3 * 64 * 128  # of queries, output and MLP
    products = 64 * (3 * 2 * 64 * 32 + 2 * matrices) + read * (matrices + 64 * 400)
    attention = 2 * 2 * 64 * (2 * 64 * 64 + 64 * 64)  # at most: scores and values
    tower = passed.forward_flops - 2 * products
    assert 0 < tower < attention + 2 * 10 * 2 * (4 * 32 * 32 + 4 * 32 * 32) + 2 * 9 * 800 * 32
    assert 2.5 * passed.forward_flops < passed.flops < 3 * passed.forward_flops


def test_live_bytes_are_those_of_tensors_that_are_there() -> None:
    weight = torch.ones(1000)
    with LiveBytes([weight]) as live:
        view = weight[:10]
        made = weight * 2
        other = made + 1
        assert live.now == 8000
        del made
        assert (live.now, live.peak) == (4000, 8000)
        last = other[5:]
        del other
        assert live.now == 4000
    assert len(view) == 10 and len(last) == 995


def test_a_batch_has_an_image_and_text_in_each_row(real: LVLM) -> None:
    batch = batch_of_rows(real, rows=2, length=14)
    assert batch.image_slot[1].tolist() == [-1, *range(9, 18), *[-1] * 4]
    assert batch.logit_node.tolist() == [9, 10, 11, 12, 23, 24, 25, 26]
    assert batch.target_seq.tolist() == [0] * 4 + [1] * 4
    assert batch.chain_bounds.tolist() == [0, 14, 28]
    assert torch.isfinite(real(batch)).all()


@pytest.mark.slow
def test_fsdp_divides_and_gathers(plan: Callable[..., Any], real: LVLM) -> None:
    gpu = ["trainer=gpu", "plan.gpu=24gb", "model=tiny"]
    alone = plan(*SMALL, *gpu)
    four = Devices("24gb", 4, "ddp", memory=0, usable=0, flops=None)
    ddp = on_one_device(alone["rest"], four, whole=0)
    fsdp = plan(*SMALL, *gpu, "trainer.devices=4", "trainer.strategy=fsdp")
    assert ddp == alone["rest"] | {"buckets": alone["rest"]["gradients"]}
    for name, size in alone["rest"].items():
        assert fsdp["rest"][name] == -(-size // 4)
    assert 0 < fsdp["rest"]["gathered"] < alone["rest"]["weights"]
    layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128 + 2 * 64
    everything = sum(parameter.numel() for parameter in real.parameters())
    assert gathered_bytes(real) == 4 * (everything - layer)  # two of three layers
    assert fsdp["settings"][0]["time"] == alone["settings"][0]["time"] / 4
    hosts = plan(*SMALL, *gpu, "trainer.devices=2", "trainer.num_nodes=2", "trainer.strategy=fsdp")
    assert (hosts["rest"], hosts["settings"]) == (fsdp["rest"], fsdp["settings"])
    assert alone["devices"]["usable"] == int(24 * GIB * 0.9)
    hours = 10_000 * alone["settings"][0]["flops"] / (165e12 * 0.4)
    assert alone["settings"][0]["time"] == pytest.approx(hours)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["job=plan", "plan.gpu=h200"], "plan.gpu is h200 and trainer.accelerator cpu: give"),
        (["job=plan", "trainer=gpu"], "plan.gpu is null, which stands for the memory of this"),
        (["job=plan", "plan.gpu=h300"], "plan.gpu is 'h300': choose h200 or h100"),
        (["job=plan", "trainer.strategy=fsdp"], "trainer.strategy=fsdp shares the weights among"),
        (["job=plan", "plan.lengths=[10]"], "plan.lengths is [10]: give lengths of at least 11"),
        (["plan.gpu=h200"], "plan.gpu is not read by job=train: give job=plan"),
        (
            ["plan.gpu=h200", "datamodule.rows_per_batch=auto"],
            "plan.gpu is not read by job=train: give job=plan, or datamodule.rows_per_batch=auto "
            "(and for plan.gpu trainer=gpu).",
        ),
        (["datamodule.rows_per_batch=most"], "datamodule.rows_per_batch is 'most': give a whole"),
        (["job=plan", "artifact=x"], "artifact is not read by job=plan"),
        (
            ["job=plan", "model=clip_b32_tinyllama", "optimizer=adamw"],
            "the shape of TinyLlama/TinyLlama-1.1B-Chat-v1.0 is not known here",
        ),
        (
            ["job=plan", "model=llava_hf", "model.name=a/b", "optimizer=adamw"],
            "the shapes of a/b are not known here",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_is_refused(
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: list[str],
    sentence: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert sentence in refused("experiment=dress_stage2", *command)


GPU = ["trainer=gpu", "plan.gpu=h200", "plan.lengths=[1024]", "data=lvlm_nlf", "data.root=/nowhere"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "width", "layers", "within", "words", "template"),
    [
        ("dress_13b", 5120, 40, 13824, 32000, "template=vicuna"),
        ("llava_7b", 4096, 32, 11008, 32000, "template=vicuna"),
        ("llava_1_5_7b", 4096, 32, 11008, 32064, "init_from=pretrained"),
        ("llava_1_5_13b", 5120, 40, 13824, 32064, "init_from=pretrained"),
    ],
)
def test_the_presets_are_planned_without_a_network(
    plan: Callable[..., Any],
    model: str,
    width: int,
    layers: int,
    within: int,
    words: int,
    template: str,
) -> None:
    found = plan("experiment=dress_stage2", f"model={model}", template, *GPU)
    parts = {part["part"]: part["total"] for part in found["parts"]}
    layer = 4 * width * width + 3 * width * within + 2 * width
    assert parts["language"] == layers * layer + 2 * words * width + width
    assert parts["lora"] == layers * 64 * (4 * 2 * width + 3 * (width + within))
    (setting,) = found["settings"]
    assert setting["cache"] == 1024 * layers * 2 * width * 2  # bfloat16
    assert 1 <= setting["rows_that_fit"] < 200
    # two passes over the weights forward and back, of which the adapter adds a little
    assert setting["flops"] == pytest.approx(4 * layers * layer * 1024, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["full", "lora", "checkpointed", "dpo", "reward", "fsdp"])
def test_training_takes_what_was_planned(setting: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/training_memory.py"), setting]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    (ratio,) = re.findall(r"ratio ([\d.]+)", done.stdout)
    assert 0.9 < float(ratio) < 1.1, done.stdout
