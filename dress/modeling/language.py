"""Language models: any Hugging Face causal LM, pretrained or random, with or without LoRA."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from dress.errors import InputError
from dress.modeling.four_bit import import_without_fetching, keep_one_layout, nf4
from dress.modeling.low_rank import fuse_adapter

LanguageModel = PreTrainedModel | PeftModel
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ATTENTIONS = ("auto", "eager", "sdpa")


@dataclass(frozen=True)
class Attention:
    """How a forward pass attends: the mask that the LM is called with, and what it runs within.

    A layer that runs again in the backward pass enters the context once more.
    """

    mask: Tensor | BlockMask
    context: Callable[[], AbstractContextManager[None]]


def causal_lm(
    *,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    vocab_size: int | None = None,
    random_init: bool = False,
    dtype: str = "float32",
    attention: str = "auto",
    quantization: str | None = None,
    lora: Mapping[str, Any] | None = None,
) -> LanguageModel:
    """Load the weights of `name`, or draw random ones for `config` (else for the shape of `name`).

    `lora` holds r, alpha, dropout and target_modules. `quantization="nf4"` rounds loaded weights to
    4 bits (four_bit.py). `attention` is what generation uses, and
    training where tree_attention.py has nothing faster. The checkpoint's own generation defaults
    are dropped: sampling settings come from the caller alone.
    """
    if dtype not in DTYPES:
        raise InputError(f"model.language.dtype: {dtype!r} is not one of {sorted(DTYPES)}.")
    if attention not in ATTENTIONS:
        raise InputError(f"model.language.attention: {attention!r} is not one of {ATTENTIONS}.")
    if quantization and random_init:
        raise InputError("model.language.quantization: only released weights rest in 4 bits.")
    # asked for None, transformers takes sdpa, or eager for a class that has no sdpa
    chosen = None if attention == "auto" else attention
    if random_init:
        shape = _shape(name=name, config=config, vocab_size=vocab_size)
        with _refusals_named(shape.model_type):
            language = AutoModelForCausalLM.from_config(
                shape, dtype=DTYPES[dtype], attn_implementation=chosen, trust_remote_code=False
            )
    else:
        rounded = nf4(DTYPES[dtype]) if quantization else None
        language = _pretrained(name, dtype=DTYPES[dtype], attention=chosen, rounded=rounded)
    language.generation_config = GenerationConfig()
    if vocab_size is not None and vocab_size > token_embedding(language).num_embeddings:
        _grow_vocabulary(language, vocab_size)
    return language if lora is None else add_lora(language, **lora)


def add_lora(
    language: LanguageModel,
    *,
    r: int,
    alpha: float,
    dropout: float = 0.0,
    target_modules: Sequence[str] | str = "all-linear",
) -> PeftModel:
    """Put one low-rank adapter on the language model; its own weights stop training."""
    assert not isinstance(language, PeftModel), "merge or unload the present adapter first"
    import_without_fetching()
    targets = target_modules if isinstance(target_modules, str) else list(target_modules)
    settings = LoraConfig(
        r=r,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=targets,
        task_type=TaskType.CAUSAL_LM,
    )
    try:
        adapted = get_peft_model(language, settings)
    except ValueError as error:
        raise InputError(
            f"model.language.lora.target_modules: {targets} fits no layer of "
            f"{type(language).__name__}; use all-linear or names such as {_linear_names(language)}."
        ) from error
    assert isinstance(adapted, PeftModel)
    fuse_adapter(adapted)
    return adapted


@contextlib.contextmanager
def attending_as(language: LanguageModel, implementation: str) -> Iterator[None]:
    """Let the LM attend by a registered implementation, whatever it was built with."""
    config = text_config(language)
    built_with = config._attn_implementation
    config._attn_implementation = implementation
    try:
        yield
    finally:
        config._attn_implementation = built_with


def text_config(language: LanguageModel) -> PretrainedConfig:
    """Return the configuration of the LM itself, which one for several modalities nests."""
    return language.config.get_text_config()


def token_embedding(language: LanguageModel) -> nn.Embedding:
    return cast(nn.Embedding, language.get_input_embeddings())


def decoder_of(language: LanguageModel) -> nn.Module:
    """Return the part that holds the embedding and the layers, but not the head."""
    own: Any = language.get_base_model() if isinstance(language, PeftModel) else language
    embedding, named = token_embedding(own), own.get_decoder()
    parts = own.children() if named is own else (named, *own.children())
    return next(part for part in parts if any(m is embedding for m in part.modules()))


def lora_settings(language: PeftModel) -> dict[str, Any]:
    """Read back the arguments of `add_lora`."""
    settings = language.peft_config["default"]
    assert isinstance(settings, LoraConfig)
    targets = settings.target_modules
    return {
        "r": settings.r,
        "alpha": settings.lora_alpha,
        "dropout": settings.lora_dropout,
        "target_modules": targets if isinstance(targets, str) else sorted(targets or ()),
    }


def _shape(
    *, name: str | None, config: Mapping[str, Any] | None, vocab_size: int | None
) -> PretrainedConfig:
    if config is None:
        shape = _hub_config(name)
        with _refusals_named(shape.model_type):
            text = shape.get_text_config()
            text.vocab_size = max(text.vocab_size, vocab_size or 0)
        return shape
    keys = dict(config)
    model_type = keys.pop("model_type", None)
    if unknown := sorted(set(keys) - shape_keys(model_type)):
        raise InputError(f"model.language.config: {model_type} has no key {unknown[0]!r}.")
    with _refusals_named(model_type):
        if vocab_size is not None:
            section = _text_section(AutoConfig.for_model(model_type))
            _set_vocabulary(keys, section=section, vocab_size=vocab_size)
        return AutoConfig.for_model(model_type, **keys)


def shape_keys(model_type: Any) -> set[str]:
    """Name what the configuration of a type of language model holds."""
    if model_type not in CONFIG_MAPPING:
        close = difflib.get_close_matches(str(model_type), list(CONFIG_MAPPING.keys()), n=5)
        raise InputError(
            f"model.language.config.model_type: transformers has no {model_type!r}; "
            f"close: {', '.join(close) or 'none'}."
        )
    with _refusals_named(model_type):
        default = AutoConfig.for_model(model_type)
    return {"model_type", *default.to_dict(), *default.attribute_map}


def _text_section(config: PretrainedConfig) -> str | None:
    """Name the key under which the configuration of the LM itself is nested, if it is."""
    text = config.get_text_config()
    return next((key for key in config.sub_configs if getattr(config, key) is text), None)


def _set_vocabulary(keys: dict[str, Any], *, section: str | None, vocab_size: int) -> None:
    text = keys if section is None else dict(keys.get(section) or {})
    text["vocab_size"] = max(text.get("vocab_size", 0), vocab_size)
    if section is not None:
        keys[section] = text


@contextlib.contextmanager
def _refusals_named(source: str) -> Iterator[None]:
    """Say in a sentence what transformers refuses to build, whatever it raises."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        told = " ".join(str(error).split())
        raise InputError(
            f"model.language: transformers builds no causal LM of {source!r} "
            f"({type(error).__name__}: {told:.200}); change the setting, or choose another model."
        ) from error


def _hub_config(name: str | None) -> PretrainedConfig:
    if name is None:
        raise InputError("model.language: give `name`, or `config` together with random_init=true.")
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _cannot_load(name, error) from error


def _pretrained(
    name: str | None,
    *,
    dtype: torch.dtype,
    attention: str | None,
    rounded: BitsAndBytesConfig | None,
) -> PreTrainedModel:
    name = str(_hub_config(name).name_or_path)
    quantized: dict[str, Any] = {}
    if rounded is not None:  # here, wherever the model is to run: every host then rounds alike
        quantized = {"quantization_config": rounded, "device_map": {"": "cpu"}}
    with _refusals_named(name):
        try:
            language = AutoModelForCausalLM.from_pretrained(
                name,
                dtype=dtype,
                attn_implementation=attention,
                trust_remote_code=False,
                **quantized,
            )
        except OSError as error:
            raise _cannot_load(name, error) from error
    if rounded is not None:
        keep_one_layout(language)
    return language


def _cannot_load(name: str, error: Exception) -> InputError:
    return InputError(
        f"model.language.name: {name!r} could not be loaded as a causal LM "
        f"({type(error).__name__}); check the name or folder and the network, or set "
        "model.language.random_init=true."
    )


def _grow_vocabulary(language: PreTrainedModel, vocab_size: int) -> None:
    """Add rows equal to the mean of the old ones, so that a rebuilt model has the same weights."""
    old_size = token_embedding(language).num_embeddings
    language.resize_token_embeddings(vocab_size, mean_resizing=False)
    layers = {language.get_input_embeddings(), language.get_output_embeddings()}
    with torch.no_grad():
        for tensor in {p for layer in layers if layer is not None for p in layer.parameters()}:
            tensor[old_size:] = tensor[:old_size].mean(dim=0)


def _linear_names(language: PreTrainedModel) -> list[str]:
    names = (name for name, module in language.named_modules() if isinstance(module, nn.Linear))
    return sorted({name.rpartition(".")[2] for name in names})


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Multiply float32 matrices without rounding them to bf16 or TF32 first.

    A CPU then multiplies by MKL. oneDNN, which lower precisions choose, also copies views and is
    slow on small matrices.
    """
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(chosen)
