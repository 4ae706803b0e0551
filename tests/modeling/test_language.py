from pathlib import Path

import pytest
import torch
from modeling_helpers import GPT2, LLAMA, LORA
from small_shapes import small_shape
from transformers import AutoModelForCausalLM

from dress.errors import InputError
from dress.modeling.language import add_lora, causal_lm, lora_settings, text_config
from dress.modeling.layers import layers_of


def test_vocabulary_of_a_random_model() -> None:
    language = causal_lm(config=LLAMA, vocab_size=50, random_init=True)
    assert language.get_input_embeddings().num_embeddings == 50
    larger = causal_lm(config=LLAMA | {"vocab_size": 60}, vocab_size=50, random_init=True)
    assert larger.get_input_embeddings().num_embeddings == 60


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["untied", "tied"])
def test_pretrained_folder_with_a_larger_vocabulary(config: dict, tmp_path: Path) -> None:
    source = causal_lm(config=config, vocab_size=40, random_init=True)
    source.generation_config.repetition_penalty = 1.5
    source.save_pretrained(tmp_path)
    first = causal_lm(name=str(tmp_path), vocab_size=43)
    second = causal_lm(name=str(tmp_path), vocab_size=43)
    weight = first.get_input_embeddings().weight
    assert torch.equal(weight[:40], source.get_input_embeddings().weight)
    torch.testing.assert_close(weight[42], weight[:40].mean(dim=0))
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert first.generation_config.repetition_penalty is None
    shape_only = causal_lm(name=str(tmp_path), random_init=True)
    assert not torch.equal(shape_only.get_input_embeddings().weight, weight[:40])


def test_dtype_and_attention() -> None:
    language = causal_lm(config=LLAMA, random_init=True, dtype="bfloat16", attention="eager")
    assert next(language.parameters()).dtype == torch.bfloat16
    assert language.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("model_type", "attention"), [("llama", "sdpa"), ("gemma2", "eager"), ("gpt_oss", "eager")]
)
def test_automatic_attention_is_what_the_class_has(model_type: str, attention: str) -> None:
    language = causal_lm(config=small_shape(model_type), vocab_size=40, random_init=True)
    assert language.config._attn_implementation == attention


def test_the_language_model_of_a_wrapper(tmp_path: Path) -> None:
    """Gemma 3's configuration nests that of its LM."""
    shape = small_shape("gemma3")
    language = causal_lm(config=shape, vocab_size=300, random_init=True)
    assert language.get_input_embeddings().num_embeddings == 300
    depth = len(shape["text_config"]["layer_types"])
    assert text_config(language).num_hidden_layers == depth
    layers = layers_of(language)
    assert layers is not None and len(layers) == depth
    language.config.save_pretrained(tmp_path)
    again = causal_lm(name=str(tmp_path), vocab_size=310, random_init=True)
    assert again.get_input_embeddings().num_embeddings == 310


def test_vicuna_shape_on_the_meta_device() -> None:
    vicuna = {
        "model_type": "llama",
        "hidden_size": 5120,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "intermediate_size": 13824,
    }
    with torch.device("meta"):
        language = causal_lm(
            name="lmsys/vicuna-13b-v1.5", config=vicuna, vocab_size=32000, random_init=True
        )
    # 2 * 32000 * 5120 + 40 * (4 * 5120^2 + 3 * 5120 * 13824 + 2 * 5120) + 5120
    assert sum(p.numel() for p in language.parameters()) == 13_015_864_320


def test_lora_adds_the_only_trainable_weights() -> None:
    language = causal_lm(config=LLAMA, vocab_size=40, random_init=True, lora=LORA)
    trainable = [name for name, p in language.named_parameters() if p.requires_grad]
    assert trainable and all("lora_" in name for name in trainable)
    assert not any("lm_head" in name for name in trainable)
    settings = lora_settings(language)
    targets = {name.rpartition(".")[2] for name in settings["target_modules"]}
    projections = {f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")}
    assert targets == projections
    assert add_lora(language.unload(), **settings).peft_config["default"].r == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"random_init": True}, "give `name`"),
        ({"name": "no/such/folder"}, "'no/such/folder' could not be loaded"),
        ({"config": {"model_type": "lama"}, "random_init": True}, "no 'lama'; close: .*llama"),
        ({"config": LLAMA | {"hiden_size": 3}, "random_init": True}, "no key 'hiden_size'"),
        ({"config": LLAMA, "random_init": True, "dtype": "float8"}, "dtype: 'float8'"),
        ({"config": LLAMA, "random_init": True, "attention": "flash"}, "attention: 'flash'"),
        (
            {"config": LLAMA | {"num_attention_heads": 5}, "random_init": True},
            "no causal LM of 'llama' .*hidden size",
        ),
        (
            {"config": small_shape("bloom"), "random_init": True, "attention": "sdpa"},
            "no causal LM of 'bloom' .*BloomForCausalLM does not support",
        ),
        ({"config": small_shape("musicgen"), "random_init": True}, "no causal LM of 'musicgen'"),
        (
            {"config": LLAMA, "random_init": True, "lora": LORA | {"target_modules": ["c_attn"]}},
            "c_attn.*q_proj",
        ),
    ],
)
def test_mistakes_are_input_errors(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        causal_lm(**arguments)


def test_pretrained_weights_are_those_of_the_folder(tmp_path: Path) -> None:
    source = causal_lm(config=LLAMA, vocab_size=40, random_init=True)
    source.save_pretrained(tmp_path)
    ours, theirs = causal_lm(name=str(tmp_path)), AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(ours(input_ids=ids).logits, theirs(input_ids=ids).logits)
