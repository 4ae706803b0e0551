"""model=dress_13b has the published shapes: counted by hand, built on the meta device."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dress.modeling.build import build_model, public_base
from dress.modeling.lvlm import LVLM
from dress.modeling.tokenizer import train_tokenizer
from dress.modeling.trainable import set_trainable

CONF = Path(__file__).resolve().parents[2] / "conf"
EXPERIMENTS = [*(f"dress_stage{stage}" for stage in range(4)), "dress_joint"]

# EVA01-g/14: width 1408, MLP 6144, no key bias, 257 positions; the last of 40 blocks is not needed
DIM, MLP, BLOCKS, PATCH = 1408, 6144, 39, 14
BLOCK = (
    (3 * DIM * DIM + 2 * DIM)  # query, key, value
    + (DIM * DIM + DIM)  # output
    + (DIM * MLP + MLP)
    + (MLP * DIM + DIM)
    + 2 * (2 * DIM)  # two norms
)
VISION = BLOCKS * BLOCK + (3 * PATCH * PATCH * DIM + DIM) + DIM + 257 * DIM

# Llama 2 13B, which Vicuna v1.5 is tuned from
WIDTH, LAYERS, HIDDEN, VOCABULARY = 5120, 40, 13824, 32000
LAYER = 4 * WIDTH * WIDTH + 3 * WIDTH * HIDDEN + 2 * WIDTH
LANGUAGE = LAYERS * LAYER + 2 * VOCABULARY * WIDTH + WIDTH

RANK = 64
LORA = LAYERS * RANK * (4 * (WIDTH + WIDTH) + 3 * (WIDTH + HIDDEN))
PROJECTOR = DIM * WIDTH + WIDTH


def composed(experiment: str, *overrides: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = ["model=dress_13b", "template=vicuna", "data=lvlm_nlf", "data.root=/nowhere"]
        return compose("run", [f"experiment={experiment}", *chosen, *overrides])


@cache
def model() -> LVLM:
    spec = OmegaConf.to_container(composed("dress_stage2", "model.random_init=true").model)
    tokenizer = train_tokenizer(["a picture"], vocab_size=300)
    with torch.device("meta"):
        return build_model(resolved(spec), tokenizer=tokenizer)


def resolved(spec: Any) -> Any:
    """Only `model` refers to itself here."""
    return OmegaConf.to_container(OmegaConf.create({"model": spec}), resolve=True)["model"]  # type: ignore[index,call-overload]


def test_the_sums_by_hand_are_the_published_ones() -> None:
    assert LANGUAGE == 13_015_864_320
    # timm lists eva_giant_patch14_224 with its last norm and a head of 1,000 classes
    assert round((VISION + BLOCK + 2 * DIM + 1000 * (DIM + 1)) / 1e6, 1) == 1012.6


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_stage_composes_and_has_the_true_shapes(experiment: str) -> None:
    cfg = composed(experiment)
    assert (cfg.model.vision.name, cfg.model.language.name) == (
        "EVA01-g-14",
        "lmsys/vicuna-13b-v1.5",
    )
    assert cfg.optimizer["_target_"] == "torch.optim.AdamW"
    assert instantiate(cfg.source, _convert_="all").files == ("*.jsonl",)
    report = set_trainable(model(), cfg.model.trainable[cfg.stage])
    counts = {count.part: (count.total, count.trainable) for count in report.counts}
    assert counts == {
        "vision": (VISION, 0),
        "projector": (PROJECTOR, PROJECTOR),
        "language": (LANGUAGE, 0),
        "lora": (LORA, LORA),
    }


def test_an_image_is_256_patches_of_224_pixels() -> None:
    vision = model().vision
    assert (vision.image_size, vision.num_tokens, vision.dim) == (224, 256, DIM)
    assert model().device.type == "meta"
    with torch.device("meta"):
        features = model().image_features(torch.zeros(2, 224, 224, 3, dtype=torch.uint8))
    assert features.shape == (2, 256, WIDTH)


def test_gpu_kernels_are_for_automatic_attention() -> None:
    assert model().gpu_kernels
    spec = resolved(OmegaConf.to_container(composed("dress_stage2", "model=tiny").model))
    assert spec["language"]["attention"] == "eager"
    with torch.device("meta"):
        assert not build_model(spec, tokenizer=train_tokenizer(["a"], vocab_size=300)).gpu_kernels


def test_without_random_init_the_public_weights_are_the_base() -> None:
    public = {
        "vision": "EVA01-g-14:laion400m_s11b_b41k",
        "projector": None,
        "language": "lmsys/vicuna-13b-v1.5",
    }
    assert public_base(composed("dress_stage1").model) == public
    drawn = composed("dress_stage1", "model.random_init=true").model
    assert public_base(drawn) == dict.fromkeys(public)
