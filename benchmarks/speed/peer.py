"""The other side: TRL's SFTTrainer or DPOTrainer on LlavaForConditionalGeneration, same weights.

    python peer.py CASE EPOCHS documented|tuned

As documented: sdpa attention, float32 products, rows in random order. Tuned: eager attention,
"medium" products, rows grouped by length, and only supervised positions scored, which TRL itself
does on GPUs alone. Both without checkpointing and bf16, which TRL turns on by default.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

import torch
import transformers.trainer_pt_utils
import trl.trainer.utils
from cases import (
    CASES,
    CLIP,
    LEARNING_RATE,
    LORA,
    TOWER,
    Case,
    peer_rows,
    samples,
    tokenizer,
)
from datasets import Dataset, Features, Image, Sequence, Value
from ours import build
from peft import LoraConfig
from segments import Segments, own_stdout
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    TrainerCallback,
)
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from dress.modeling.lvlm import LVLM


def peer_processor(case: Case) -> LlavaProcessor:
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"height": case.image_px, "width": case.image_px}, do_center_crop=False
        ),
        tokenizer=tokenizer(),
        patch_size=case.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
    )


def peer_model(case: Case, *, attention: str) -> LlavaForConditionalGeneration:
    """Same shapes: LLaVA reads the raw output of the tower's last layer, 4 layers in all."""
    language = {k: v for k, v in case.language.items() if k != "model_type"}
    words = tokenizer()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=TOWER["width"],
            intermediate_size=int(TOWER["width"] * TOWER["mlp_ratio"]),
            num_hidden_layers=4,
            num_attention_heads=TOWER["width"] // TOWER["head_width"],
            image_size=case.image_px,
            patch_size=case.patch,
            hidden_act="gelu",
        ),
        text_config=LlamaConfig(**language),
        image_token_id=words.get_vocab()["<image>"],
        image_seq_length=case.image_tokens,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration._from_config(config, attn_implementation=attention)
    model.config.pad_token_id = words.pad_token_id
    return model


def copy_weights(ours: LVLM, theirs: LlavaForConditionalGeneration) -> None:
    """Give the peer our random weights, so that both compute the same loss."""
    theirs.model.language_model.load_state_dict(ours.language.model.state_dict())
    theirs.lm_head.load_state_dict(ours.language.lm_head.state_dict())
    joint, own = theirs.model.multi_modal_projector, ours.projector
    joint.linear_1.load_state_dict(own[0].state_dict())
    joint.linear_2.load_state_dict(own[2].state_dict())
    theirs.model.vision_tower.load_state_dict(
        tower_state(ours.vision.visual.state_dict()), strict=False
    )


def tower_state(visual: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name open_clip's weights as transformers does; the three projections of attention apart."""
    state = {
        "embeddings.class_embedding": visual["class_embedding"],
        "embeddings.patch_embedding.weight": visual["conv1.weight"],
        "embeddings.position_embedding.weight": visual["positional_embedding"],
        "pre_layrnorm.weight": visual["ln_pre.weight"],
        "pre_layrnorm.bias": visual["ln_pre.bias"],
    }
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    names |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for layer in range(4):
        here, there = f"transformer.resblocks.{layer}", f"encoder.layers.{layer}"
        for end in ("weight", "bias"):
            for own, name in names.items():
                state[f"{there}.{name}.{end}"] = visual[f"{here}.{own}.{end}"]
            parts = visual[f"{here}.attn.in_proj_{end}"].chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                state[f"{there}.self_attn.{name}_proj.{end}"] = part
    return state


def peer_data(case: Case) -> Dataset:
    rows = peer_rows(case, samples(case))
    texts = [name for name in rows[0] if name != "images"]
    encode = tokenizer()
    for row in rows:  # of the longer response, where there are two
        ends = [row[name] for name in texts if name != "prompt"]
        row["length"] = max(len(encode(row["prompt"] + end)["input_ids"]) for end in ends)
    features = {name: Value("string") for name in texts}
    features |= {"images": Sequence(Image()), "length": Value("int64")}
    return Dataset.from_list(rows, features=Features(features))


class Timed(TrainerCallback):
    def __init__(self, segments: Segments) -> None:
        self.segments = segments

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> Any:
        if not self.segments.step():
            control.should_training_stop = True
        return control


def settings(case: Case, *, tuned: bool) -> dict[str, Any]:
    rows = case.peer_rows if tuned else 8
    return {
        "output_dir": tempfile.mkdtemp(prefix="peer-"),
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": 8 // rows,
        "num_train_epochs": 1000,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": CLIP,
        "optim": "adamw_torch_fused",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_length": None,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 100,
        "disable_tqdm": True,
        "train_sampling_strategy": "group_by_length" if tuned else "random",
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }


def adapter(case: Case) -> LoraConfig | None:
    if not case.lora:
        return None
    return LoraConfig(
        r=LORA["r"],
        lora_alpha=LORA["alpha"],
        target_modules=r".*language_model.*_proj",
        modules_to_save=["multi_modal_projector"],
    )


def trainer_of(case: Case, *, tuned: bool, callbacks: list[TrainerCallback]) -> Any:
    torch.manual_seed(0)
    model = peer_model(case, attention="eager" if tuned else "sdpa")
    copy_weights(build(Case(**vars(case) | {"lora": False})), model)
    if not case.lora:
        model.model.vision_tower.requires_grad_(False)
    if tuned:
        torch.set_float32_matmul_precision("medium")
        trl.trainer.utils._use_triton = lambda device: True
        # sort by length among all rows; by itself it takes a quarter of so small a set at a time
        grouped = transformers.trainer_pt_utils.get_length_grouped_indices
        transformers.trainer_pt_utils.get_length_grouped_indices = partial(
            grouped, mega_batch_mult=50
        )
    dpo = case.objective == "dpo"
    arguments = (DPOConfig if dpo else SFTConfig)(**settings(case, tuned=tuned))
    return (DPOTrainer if dpo else SFTTrainer)(
        model=model,
        args=arguments,
        train_dataset=peer_data(case),
        processing_class=peer_processor(case),
        peft_config=adapter(case),
        callbacks=callbacks,
    )


def counted(trainer: Any, segments: Segments) -> None:
    collate = trainer.data_collator

    def counting(rows: Any) -> Any:
        batch = collate(rows)
        computed = batch["input_ids"].numel()
        segments.note["computed_tokens"] = segments.note.get("computed_tokens", 0) + computed
        return batch

    trainer.data_collator = counting


def main(case: Case, *, epochs: int, tuned: bool) -> None:
    reports = own_stdout()
    segments = Segments(steps_per_segment=epochs * case.rows // 8, reports=reports)
    trainer = trainer_of(case, tuned=tuned, callbacks=[Timed(segments)])
    counted(trainer, segments)
    trainer.train()


if __name__ == "__main__":
    main(CASES[sys.argv[1]], epochs=int(sys.argv[2]), tuned=sys.argv[3] == "tuned")
