"""Tiny models of other families than LLaVA's, built, randomised and saved by transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GotOcr2ImageProcessor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlamaConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from dress.modeling.tokenizer import IMAGE_TOKEN, PAD_TOKEN, train_tokenizer
from tests.hub.released_models import CHATML, SHAPE, SIZE, TEXTS, WIDE

BEGIN, END = "<|im_start|>", "<end_of_utterance>"
AROUND = ("<fake_token_around_image>", "<global-img>")
# as SmolVLM's: a space stands behind the role where no image does
SMOL_CHAT = (
    "{{ '<|im_start|>' }}{% for message in messages %}{{ message['role'].capitalize() + ':' }}"
    "{% if message['content'][0]['type'] != 'image' %}{{ ' ' }}{% endif %}"
    "{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ '<end_of_utterance>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
CONTEXT, IMG, IMG_END, VIDEO = "<IMG_CONTEXT>", "<img>", "</img>", "<video>"
INTERN_CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% for part in message['content'] %}"
    "{{ '<IMG_CONTEXT>\\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class FamilyKind:
    """A family, whether its pictures stay whole, and whether the embeddings are the head."""

    family: str
    whole: bool = True
    tied: bool = False


def save_family(kind: FamilyKind, folder: Path) -> Path:
    """Save a model with large random weights, so that every layer matters."""
    saved = {
        "idefics3": _idefics3,
        "smolvlm": _smolvlm,
        "internvl": _internvl,
        "onevision": _onevision,
    }
    torch.manual_seed(0)
    model, processor = saved[kind.family](kind)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            inner = "text_model.layers" in name or "language_model.layers" in name
            scale = 0.25 if inner else 0.2 if "proj" in name else 0.1
            parameter.add_(torch.randn_like(parameter) * scale)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _smol_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = train_tokenizer(TEXTS, vocab_size=360, special_tokens=[BEGIN, END, *AROUND])
    tokenizer.bos_token, tokenizer.eos_token = BEGIN, END
    return tokenizer


def _smol_config(tokenizer: PreTrainedTokenizerFast, *, tied: bool) -> dict[str, Any]:
    text = LlamaConfig(
        **WIDE,
        num_hidden_layers=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        vocab_size=len(tokenizer) + 5,
        **_ids(tokenizer),
    )
    return {
        "text_config": text,
        "vision_config": {**SHAPE, "num_hidden_layers": 2},
        "scale_factor": 2,
        "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        "tie_word_embeddings": tied,
        **_ids(tokenizer),
    }


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _squares(kind: FamilyKind) -> dict[str, Any]:
    return {
        "size": {"longest_edge": 2 * SIZE},
        "max_image_size": {"longest_edge": SIZE},
        "do_image_splitting": not kind.whole,
    }


def _idefics3(kind: FamilyKind) -> tuple[PreTrainedModel, Any]:
    tokenizer = _smol_tokenizer()
    config = Idefics3Config(**_smol_config(tokenizer, tied=kind.tied))
    processor = Idefics3Processor(
        Idefics3ImageProcessor(**_squares(kind)),
        tokenizer,
        image_seq_len=4,
        chat_template=SMOL_CHAT,
    )
    return Idefics3ForConditionalGeneration(config), processor


def _smolvlm(kind: FamilyKind) -> tuple[PreTrainedModel, Any]:
    tokenizer = _smol_tokenizer()
    config = SmolVLMConfig(**_smol_config(tokenizer, tied=kind.tied))
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**_squares(kind)),
        tokenizer,
        SmolVLMVideoProcessor(),
        image_seq_len=4,
        chat_template=SMOL_CHAT,
    )
    return SmolVLMForConditionalGeneration(config), processor


def _onevision(kind: FamilyKind) -> tuple[PreTrainedModel, Any]:
    assert not kind.whole, "the processor has no such setting"
    chat = [BEGIN, "<|im_end|>"]
    tokenizer = train_tokenizer(TEXTS, vocab_size=360, special_tokens=[*chat, VIDEO])
    tokenizer.eos_token = "<|im_end|>"
    text = Qwen2Config(
        **WIDE,
        num_hidden_layers=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        vocab_size=len(tokenizer) + 5,
        tie_word_embeddings=kind.tied,
        **_ids(tokenizer),
    )
    grid = [[SIZE, SIZE], [SIZE, 2 * SIZE], [2 * SIZE, SIZE]]
    config = LlavaOnevisionConfig(
        text_config=text,
        vision_config=SiglipVisionConfig(
            **SHAPE, hidden_act="gelu_pytorch_tanh", vision_use_head=False
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        video_token_index=tokenizer.convert_tokens_to_ids(VIDEO),
        image_grid_pinpoints=grid,
        tie_word_embeddings=kind.tied,
    )
    side = {"height": SIZE, "width": SIZE}
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=side, image_grid_pinpoints=grid),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=side),
        num_image_tokens=(SIZE // 14) ** 2,
        vision_feature_select_strategy="full",
        chat_template=CHATML,
    )
    return LlavaOnevisionForConditionalGeneration(config), processor


def _internvl(kind: FamilyKind) -> tuple[PreTrainedModel, Any]:
    """A tokenizer without `<image>`, whose special tokens have names."""
    named = {
        "start_image_token": IMG,
        "end_image_token": IMG_END,
        "context_image_token": CONTEXT,
        "video_token": VIDEO,
    }
    chat = [BEGIN, "<|im_end|>"]
    trained = train_tokenizer(TEXTS, vocab_size=360, special_tokens=[*chat, *named.values()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained.backend_tokenizer,
        pad_token=PAD_TOKEN,
        eos_token="<|im_end|>",
        extra_special_tokens=named,
        clean_up_tokenization_spaces=False,
    )
    text = Qwen2Config(
        **WIDE,
        num_hidden_layers=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        vocab_size=len(tokenizer) + 5,
        **_ids(tokenizer),
    )
    config = InternVLConfig(
        text_config=text,
        vision_config={**SHAPE, "num_hidden_layers": 2},
        image_token_id=tokenizer.convert_tokens_to_ids(CONTEXT),
        image_seq_length=4,
        tie_word_embeddings=kind.tied,
    )
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(
            size={"height": SIZE, "width": SIZE}, max_patches=1 if kind.whole else 12
        ),
        tokenizer,
        InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=INTERN_CHAT,
    )
    return InternVLForConditionalGeneration(config), processor
