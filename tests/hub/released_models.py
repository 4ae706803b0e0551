"""Tiny LLaVA models, built, randomised and saved by transformers itself."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    GPT2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipImageProcessor,
    SiglipVisionConfig,
)

from dress.modeling.tokenizer import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
SIZE = 56
TEXTS = [
    "USER: What is in the picture? ASSISTANT: A cup of coffee on a table beside a spoon. FEEDBACK:",
    "user assistant system You are a helpful assistant. helpfulness honesty harmlessness 1 2 3 4",
]
# as llava-hf/llava-1.5 writes it: no end token behind an answer
VICUNA = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
CHATML = (
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
WIDE = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
SHAPE: dict[str, Any] = {**WIDE, "num_hidden_layers": 3, "image_size": SIZE, "patch_size": 14}


@dataclass(frozen=True)
class Kind:
    """Which parts a model has."""

    tower: str = "clip"
    act: str = "quick_gelu"
    layer: int = -2
    language: str = "llama"
    projector_act: str = "gelu"
    tied: bool = False
    metaspace: bool = False  # the tokenizer marks words as Llama's does

    @property
    def name(self) -> str:
        return f"{self.tower}-{self.act}{self.layer}-{self.language}"


KINDS = (
    Kind(),
    Kind(tower="siglip", act="gelu_pytorch_tanh", layer=-1, language="qwen2", tied=True),
    Kind(act="gelu", layer=-1, language="gpt2"),
    Kind(
        tower="siglip",
        act="gelu",
        layer=-2,
        language="llama",
        projector_act="linear",
        metaspace=True,
    ),
)


def language_config(kind: Kind, vocab_size: int, **ids: int) -> PretrainedConfig:
    common: dict[str, Any] = {"vocab_size": vocab_size, "tie_word_embeddings": kind.tied, **ids}
    if kind.language == "gpt2":
        return GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, **common)
    common |= {**WIDE, "num_hidden_layers": 2, "num_key_value_heads": 2}
    made = {"llama": LlamaConfig, "qwen2": Qwen2Config}[kind.language]
    return made(max_position_embeddings=1024, **common)


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """Write a word's space into it, and one before the first word, but none behind a token."""
    specials = ["<pad>", "<s>", "</s>", "<image>", "<unk>"]
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bpe.decoder = decoders.Metaspace(prepend_scheme="first")
    letters = [*sorted(set(string.printable) - set(string.whitespace)), "\n"]
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=specials, initial_alphabet=letters, show_progress=False
    )
    bpe.train_from_iterator(TEXTS, trainer=trainer)
    names = dict(pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=bpe, extra_special_tokens=["<image>"], **names)


def save_released(kind: Kind, folder: Path, *, shard: str = "1GB") -> Path:
    """Save a model of this kind with large random weights, so that every layer matters."""
    chatml = kind.language == "qwen2"
    added = ["<|im_start|>", "<|im_end|>"] if chatml else []
    tokenizer = train_tokenizer(TEXTS, vocab_size=360, special_tokens=added)
    if kind.metaspace:
        tokenizer = metaspace_tokenizer()
    if chatml:
        tokenizer.eos_token = "<|im_end|>"
    else:
        bos = ("<s>", tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[bos]
        )
    clip = kind.tower == "clip"
    vision = CLIPVisionConfig if clip else SiglipVisionConfig
    strategy = "default" if clip else "full"
    config = LlavaConfig(
        vision_config=vision(**SHAPE, hidden_act=kind.act),
        text_config=language_config(
            kind,
            len(tokenizer) + 5,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(SIZE // 14) ** 2,
        vision_feature_layer=kind.layer,
        vision_feature_select_strategy=strategy,
        projector_hidden_act=kind.projector_act,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            inner = "language_model.layers" in name or "language_model.h." in name
            scale = 0.25 if inner else 0.2 if "projector" in name else 0.1
            parameter.add_(torch.randn_like(parameter) * scale)
    model.save_pretrained(folder, max_shard_size=shard)
    side = {"height": SIZE, "width": SIZE}
    image_processor = (
        CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=side)
        if clip
        else SiglipImageProcessor(size=side)
    )
    LlavaProcessor(
        image_processor,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy=strategy,
        chat_template=CHATML if chatml else VICUNA,
        num_additional_image_tokens=int(clip),
    ).save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Theirs:
    """A saved model as transformers loads it."""

    model: Any
    processor: Any

    @classmethod
    def load(cls, folder: Path) -> Theirs:
        model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager")
        return cls(model.eval(), AutoProcessor.from_pretrained(folder))

    def inputs(self, question: str, images: list[Image.Image]) -> Any:
        content: list[dict[str, Any]] = [{"type": "image"} for _ in images]
        content.append({"type": "text", "text": question})
        prompt = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        given: Any = [images] if images else None
        made = self.processor(text=prompt, images=given, return_tensors="pt")
        several = len(images) == 1 and "batch_num_images" in made
        return self._whole(prompt, images[0]) if several else made

    def _whole(self, prompt: str, image: Image.Image) -> dict[str, Any]:
        """Show a single picture as each of two is shown, by a processor with further views."""
        two = self.processor.image_processor([[image, image]], return_tensors="pt")
        run = self.processor.replace_image_token(two, 0)
        asked = prompt.replace(self.processor.image_token, run)
        shown = {name: two[name][:1] for name in ("pixel_values", "image_sizes")}
        number = {"batch_num_images": torch.tensor([2])}
        return {**self.processor.tokenizer(asked, return_tensors="pt"), **shown, **number}

    def answer(self, inputs: Any, *, max_new_tokens: int = 12) -> list[int]:
        made = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return made[0, inputs["input_ids"].shape[1] :].tolist()


def photographs() -> list[Image.Image]:
    """One picture in three aspect ratios: wide, square, tall."""
    whole = Image.open(ROOT / "docs/coffee.jpg").convert("RGB")
    return [whole, whole.resize((217, 217)), whole.rotate(90, expand=True).resize((131, 303))]
