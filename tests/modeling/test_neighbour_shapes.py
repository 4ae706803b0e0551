"""The published recipes of the neighbours have the true shapes: by hand, and on the meta device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dress.modeling.build import build_model
from dress.modeling.reference import Reference
from dress.modeling.tokenizer import train_tokenizer
from dress.modeling.trainable import set_trainable

CONF = Path(__file__).resolve().parents[2] / "conf"
RANK = 64

# CLIP ViT-L/14: the last of 24 blocks, the norm after it and the projection are not needed
DIM, PATCH = 1024, 14
BLOCK = (3 * DIM * DIM + 3 * DIM) + (DIM * DIM + DIM) + (8 * DIM * DIM + 5 * DIM) + 2 * 2 * DIM
EVA_VISION = 985_894_528  # dress_13b's, from the sum in test_paper_shapes.py
VISION = 23 * BLOCK + 3 * PATCH * PATCH * DIM + DIM + 257 * DIM + 2 * DIM


def llama(width: int, layers: int, hidden: int) -> tuple[int, int]:
    """Weights of the LM, and of an adapter on all of its linear layers but the output head."""
    layer = 4 * width * width + 3 * width * hidden + 2 * width
    lora = RANK * (4 * (width + width) + 3 * (width + hidden))
    return layers * layer + 2 * 32000 * width + width, layers * lora


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("run", [*overrides, "data.root=/nowhere", "template=vicuna"])


def on_meta(cfg: Any) -> Any:
    spec = OmegaConf.to_container(cfg.model, resolve=True)
    assert isinstance(spec, dict)
    tokenizer = train_tokenizer(["a picture"], vocab_size=300)
    with torch.device("meta"):
        return build_model(spec, tokenizer=tokenizer)  # type: ignore[arg-type]


def test_the_sums_by_hand_are_the_published_ones() -> None:
    assert llama(4096, 32, 11008)[0] == 6_738_415_616
    # open_clip lists 304.0 million for the whole tower, without its 768-wide projection 303.2
    assert round((VISION + BLOCK + 2 * DIM) / 1e6, 1) == 303.2


CASES = {
    "silkie_dpo_published": ("vlfeedback", "llava_7b", (4096, 32, 11008), VISION, DIM),
    "llava_rlhf_rm_published": (
        "llava_preference",
        "dress_13b",
        (5120, 40, 13824),
        EVA_VISION,
        1408,
    ),
}


@pytest.mark.parametrize("experiment", CASES)
def test_a_recipe_has_the_published_settings_and_the_true_shapes(experiment: str) -> None:
    data, name, shape, vision, dim = CASES[experiment]
    cfg = composed(
        f"experiment={experiment}", f"data={data}", f"model={name}", "model.random_init=true"
    )
    assert cfg.optimizer["_target_"] == "torch.optim.AdamW"
    assert instantiate(cfg.source, _convert_="all").images == cfg.data.images
    is_dpo = experiment.startswith("silkie")
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == ((1e-5, 0.05) if is_dpo else (2e-5, 0))
    assert cfg.objective.get("beta", 0.1) == 0.1 and cfg.objective.get("centring", 1e-3) == 1e-3
    model = on_meta(cfg)
    report = set_trainable(model, cfg.model.trainable[cfg.stage])
    counts = {count.part: (count.total, count.trainable) for count in report.counts}
    language, lora = llama(*shape)
    assert counts.pop("vision") == (vision, 0)
    expected = {
        "projector": (dim * shape[0] + shape[0], 0),
        "language": (language, 0),
        "lora": (lora, lora),
    }
    head = shape[0] + 1
    assert counts == (expected if is_dpo else expected | {"scalar_head": (head, head)})
    objective = instantiate(cfg.objective)
    objective.prepare(model)  # DPO keeps what trains a second time, no more
    kept = Reference(model)._start.values() if is_dpo else ()
    assert sum(tensor.numel() for tensor in kept) == (lora if is_dpo else 0)


def test_ppo_has_the_published_settings_and_the_reward_models_shapes() -> None:
    command = ("experiment=llava_rlhf_ppo_published", "data=llava_prompts", "model=dress_13b")
    cfg = composed(*command, "model.random_init=true")
    objective = instantiate(cfg.objective)
    rollouts, rewards = objective.rollouts, objective.rewards
    assert (rewards.correct, rewards.length, rewards.no_end) == (2.0, -10.0, -8.0)
    assert (objective.kl, objective.kl_form) == (0.1, "clamped")
    assert (objective.gamma, objective.lam) == (1.0, 1.0)
    assert (objective.clip, objective.value_clip, objective.value_weight) == (0.2, 0.2, 0.1)
    assert (rollouts.samples, rollouts.max_new_tokens) == (1, 896)
    assert (cfg.datamodule.groups_per_step, rollouts.epochs, rollouts.minibatches) == (512, 2, 2)
    # four epochs of 72,000 prompts
    assert cfg.trainer.max_steps == 4 * 72_000 // 512 * rollouts.updates
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (3e-5, 0)
    assert (cfg.module.gradient_clip, cfg.scheduler.final_lr) == (1.0, 0.0)
    policy = on_meta(cfg)
    critic = on_meta(composed(*command, "model.random_init=true", "+model.scalar_head=true"))
    reports = [set_trainable(m, cfg.model.trainable[cfg.stage]) for m in (policy, critic)]
    lora = llama(5120, 40, 13824)[1]
    assert [report.trainable for report in reports] == [lora, lora + 5120 + 1]
