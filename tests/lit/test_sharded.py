"""FSDP2 on several processes trains what one process trains, and DDP goes on from its state."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from safetensors.torch import load_file
from torch import Tensor

from dress.assistant import Assistant
from dress.chat.distillation import SelfDistillationEncoder
from dress.chat.encoders import CritiqueEncoder, InstructionEncoder
from dress.chat.judging import RewardEncoder
from dress.chat.preferences import PreferenceEncoder
from dress.distributed import place
from dress.jobs.processes import join
from dress.modeling.build import new_scalar_head
from dress.modeling.checkpoint import save_weights
from dress.modeling.language import add_lora
from dress.modeling.lvlm import LVLM
from dress.modeling.sharding import gathered, shard
from dress.modeling.trainable import set_trainable
from dress.objectives.conditional_lm import ConditionalLM
from dress.objectives.dpo import DPO
from dress.objectives.reward import PairwiseReward
from dress.objectives.self_distillation import SelfDistillation
from dress.types import TokenBatch
from lit_modules.alignment import AlignmentModule
from lit_modules.callbacks.train_state import TrainState
from lit_modules.muon import MuonAdamW
from lit_modules.sharded import ShardedStrategy
from tests.integration.small import feedback_samples, make_assistant, make_collator
from tests.lit.toys import ToyData, make_trainer
from tests.processes import run_ranks

STEPS, GROUPS = 5, 7  # uneven shares
SAMPLES = feedback_samples(GROUPS, responses=3)
BASE = dict.fromkeys(("vision", "projector", "language"))
PLAIN: dict[str, Any] = {
    "objective": ConditionalLM,
    "trains": ("vision", "projector", "language"),
    "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.05),
}
KINDS: dict[str, dict[str, Any]] = {
    "sft": {},
    "critique": {"encoder": CritiqueEncoder},
    "lora": {"trains": ("projector", "lora")},
    "frozen_tower": {"trains": ("language",)},
    "adamw": {"optimizer": lambda groups: torch.optim.AdamW(groups, lr=1e-3, fused=True, eps=1e-3)},
    "tied": {
        "optimizer": lambda groups: torch.optim.AdamW(groups, lr=1e-3, eps=1e-3),
        "tied": True,
    },
    "muon": {"optimizer": lambda groups: MuonAdamW(groups, lr=1e-4, muon_scale=20.0)},
    "dpo": {"objective": DPO, "encoder": PreferenceEncoder, "trains": ("projector", "language")},
    "dpo_lora": {"objective": DPO, "encoder": PreferenceEncoder, "trains": ("lora",)},
    "sdpo": {"objective": SelfDistillation, "encoder": SelfDistillationEncoder},
    "reward": {"objective": PairwiseReward, "encoder": RewardEncoder},
    "checkpointed": {"checkpointed": True},
    "half_language": {"language": torch.bfloat16},
}
WITHIN = {"muon": 1e-5, "half_language": 1e-3}  # bfloat16 holds three digits


def train(kind: str, folder: Path, *, strategy: str = "auto", until: int = STEPS) -> None:
    """Train on this rank's share of each step, from the state in a folder if there is one."""
    torch.set_num_threads(1)
    rank, world = place()
    folder.mkdir(parents=True, exist_ok=True)
    setting = PLAIN | KINDS[kind]
    assistant = built(setting)
    if strategy == "fsdp":
        shard(assistant.model, torch.device("cpu"))
    objective = setting["objective"]()
    objective.prepare(assistant.model)
    module = AlignmentModule(
        model=assistant.model,
        objective=objective,
        optimizer=setting["optimizer"],
        activation_checkpointing=setting.get("checkpointed", False),
    )
    state = TrainState(scratch=folder, every_n_steps=1)
    several = {
        "plugins": [TorchElasticEnvironment()],
        "strategy": ShardedStrategy() if strategy == "fsdp" else strategy,
    }
    trainer = make_trainer(
        devices=world,
        max_steps=until,
        callbacks=[state],
        enable_checkpointing=True,
        **(several if world > 1 else {}),
    )
    steps = batches(assistant, setting, rank=rank, world=world)
    data = ToyData(steps, steps[:1])
    trainer.fit(module, data, ckpt_path=state.resume_path(), weights_only=True)
    trainer.validate(module, data, verbose=False)
    if strategy == "fsdp":
        check_gathered(assistant.model, steps[0][0])
    if rank == 0 or strategy == "fsdp":
        save_weights(assistant.model, folder / "weights", base=BASE)


@torch.no_grad()
def check_gathered(model: LVLM, batch: TokenBatch) -> None:
    """Run the model on all ranks, and once more on the first alone."""
    logits = model.eval()(batch)
    with gathered(model):
        if place()[0] == 0:
            for _ in range(2):
                assert torch.equal(model(batch), logits)


def built(setting: dict[str, Any]) -> Assistant:
    assistant = make_assistant(SAMPLES)
    if "lora" in setting["trains"]:
        assistant.model.language = add_lora(assistant.model.language, r=2, alpha=4)
    if setting["objective"] is PairwiseReward:
        assistant.model.scalar_head = new_scalar_head(64)
    if setting.get("tied"):
        own = assistant.model.language
        own.get_output_embeddings().weight = own.get_input_embeddings().weight
    assistant.model.language.to(setting.get("language", torch.float32))
    set_trainable(assistant.model, setting["trains"])
    return assistant


def batches(assistant: Assistant, setting: dict[str, Any], *, rank: int, world: int) -> list[Any]:
    """Cut steps into micro-batches of one row; the first has no image on rank 1 of two."""
    settings: dict[Any, dict[str, Any]] = {
        CritiqueEncoder: {"condition": assistant.condition, "seed": 0},
        SelfDistillationEncoder: {"condition": assistant.condition},
        RewardEncoder: {"facts": False, "seed": 0},
    }
    encoder = setting.get("encoder", InstructionEncoder)
    encode: Callable[..., Any] = encoder(processor=assistant.processor, **settings.get(encoder, {}))
    samples = [replace(s, images=()) if n % 2 else s for n, s in enumerate(SAMPLES)]
    collate = make_collator(assistant, rows_per_batch=1)
    return [
        collate([encode(s, epoch=0) for s in (samples if step == 0 else SAMPLES)[rank::world]])
        for step in range(STEPS)
    ]


def one_rank(folder: Path, strategy: str, until: int, kinds: list[str]) -> None:
    join(f"file://{folder / f'meeting-{strategy}-{until}'}")
    for kind in kinds:
        train(kind, folder / kind, strategy=strategy, until=until)


def on_ranks(folder: Path, strategy: str, *kinds: str, world: int = 2, until: int = STEPS) -> Path:
    """Train in so many processes; the weights of a kind are in a folder of its name."""
    run_ranks(Path(__file__), [str(folder), strategy, str(until), *kinds], world=world)
    return folder


def same_weights(one: Path, other: Path, *, within: float) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=within, msg=name)


def weights(folder: Path) -> dict[str, Tensor]:
    files = sorted((folder / "weights").glob("*.safetensors"))
    return {f"{f.stem}/{name}": value for f in files for name, value in load_file(f).items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what trains a kind in this process, once."""
    folder = tmp_path_factory.mktemp("alone")

    def trained(kind: str) -> Path:
        if not (folder / kind).exists():
            train(kind, folder / kind)
        return folder / kind

    return trained


QUICK = ("sft", "dpo_lora")


def test_two_processes_equal_one(tmp_path: Path, alone: Callable[[str], Path]) -> None:
    on_ranks(tmp_path, "fsdp", *QUICK)
    for kind in QUICK:
        same_weights(alone(kind), tmp_path / kind, within=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "world"), [("ddp", 2), ("fsdp", 2), ("fsdp", 4)])
def test_any_processes_equal_one(
    tmp_path: Path, alone: Callable[[str], Path], strategy: str, world: int
) -> None:
    on_ranks(tmp_path, strategy, *KINDS, world=world)
    for kind in KINDS:
        same_weights(alone(kind), tmp_path / kind, within=WITHIN.get(kind, 1e-6))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adamw", "tied", "muon", "dpo_lora"])
def test_training_goes_on_with_other_ranks_and_another_strategy(
    tmp_path: Path, alone: Callable[[str], Path], kind: str
) -> None:
    on_ranks(tmp_path, "fsdp", kind, until=1)
    on_ranks(tmp_path, "ddp", kind, until=2)
    on_ranks(tmp_path, "fsdp", kind, world=4, until=3)
    train(kind, tmp_path / kind, until=4)
    on_ranks(tmp_path, "fsdp", kind)
    same_weights(alone(kind), tmp_path / kind, within=WITHIN.get(kind, 1e-6))


if __name__ == "__main__":
    one_rank(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
